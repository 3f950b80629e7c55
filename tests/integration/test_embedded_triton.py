"""The embedded Triton is a real one: it comes back, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio

from pipeline.embedded import EmbeddedFailed, EmbeddedTriton, wheel

_DEADLINE_S = 20.0
_CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "text" data_type: TYPE_STRING dims: [1] }]
output [{ name: "size" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ kind: KIND_CPU }]
"""
_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        time.sleep({pause_s})
        answers = []
        for request in requests:
            texts = pb.get_input_tensor_by_name(request, "text").as_numpy()
            sizes = np.array([[len(text[0])] for text in texts], np.int32) * {factor}
            answers.append(pb.InferenceResponse([pb.Tensor("size", sizes)]))
        return answers
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with a model that measures texts, and a broken one."""
    folder = tmp_path / "models"
    add_model(folder, "size", _MODEL.format(pause_s=0.02, factor=1))
    add_model(folder, "broken", "import a_module_that_nobody_has")
    return folder


@pytest.fixture(autouse=True)
def nothing_left_in_shared_memory() -> Iterator[None]:
    """Whatever a test does to the server, its shared memory is freed."""
    before = set(Path("/dev/shm").glob(f"sluice_{os.getpid()}_*"))
    yield
    assert set(Path("/dev/shm").glob(f"sluice_{os.getpid()}_*")) == before


def add_model(repository: Path, name: str, code: str, config: str = _CONFIG) -> None:
    """Put a python-backend model into the repository."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (repository / name / "1" / "model.py").write_text(code)


@contextlib.asynccontextmanager
async def serving(triton: EmbeddedTriton) -> AsyncIterator[EmbeddedTriton]:
    """Start the server and end it the quick way: an orderly stop takes 3 s."""
    try:
        await triton.start()
        yield triton
    finally:
        await triton.kill()


def question(text: str) -> list[triton_grpc.InferInput]:
    """The inputs that ask for the size of one text."""
    tensor = triton_grpc.InferInput("text", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
    return [tensor]


async def size_of(address: str, text: str) -> int:
    """Ask the server at a gRPC address."""
    async with triton_aio.InferenceServerClient(address) as client:
        answer = await client.infer("size", question(text))
        return int(answer.as_numpy("size")[0, 0])


def family(pid: int | None) -> list[psutil.Process]:
    """The server and its stubs."""
    assert pid is not None
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]


def are_gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them have ended, at the latest at the deadline."""
    _gone, alive = psutil.wait_procs(processes, timeout=_DEADLINE_S)
    return not alive


def test_it_serves_from_start_to_stop(repository: Path, tmp_path: Path) -> None:
    """Models answer over gRPC, metrics over HTTP; then all of it is gone."""

    async def scenario() -> list[psutil.Process]:
        async with EmbeddedTriton(repository, ["size"], tmp_path) as triton:
            assert await size_of(triton.grpc_address, "häz") == 4
            metrics = f"http://{triton.metrics_address}/metrics"
            page = await asyncio.to_thread(_get, metrics)
            assert b'nv_inference_request_success{model="size"' in page
            running = family(triton.pid)
            assert len(running) == 2
        assert triton.pid is None
        return running

    assert are_gone(asyncio.run(scenario()))


def test_a_client_finds_it_again_after_a_kill_under_load(repository: Path, tmp_path: Path) -> None:
    """SIGKILL in mid-request ends stubs too; the next start has the address."""

    async def scenario() -> None:
        async with serving(EmbeddedTriton(repository, ["size"], tmp_path)) as triton:
            async with triton_aio.InferenceServerClient(triton.grpc_address) as client:
                load = [client.infer("size", question("word")) for _ in range(30)]
                asked = [asyncio.ensure_future(request) for request in load]
                await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                running, address = family(triton.pid), triton.grpc_address
                await triton.kill()
                assert are_gone(running)
                failures = await asyncio.gather(*asked, return_exceptions=True)
                assert any(isinstance(failure, Exception) for failure in failures)
            await triton.start()
            assert triton.grpc_address == address
            assert await size_of(address, "word") == 4

    asyncio.run(scenario())


def test_a_server_killed_by_others_takes_its_stub_along(repository: Path, tmp_path: Path) -> None:
    """When the server alone is killed, no stub stays; it can be started again."""

    async def scenario() -> None:
        async with serving(EmbeddedTriton(repository, ["size"], tmp_path)) as triton:
            running = family(triton.pid)
            running[0].send_signal(signal.SIGKILL)
            assert await asyncio.to_thread(are_gone, running)
            await triton.stop()
            await triton.start()
            assert await size_of(triton.grpc_address, "word") == 4

    asyncio.run(scenario())


def test_one_that_died_is_put_away_when_it_is_started_again(
    repository: Path, tmp_path: Path
) -> None:
    """Its pipes are closed: garbage collection finds nothing to warn of."""

    async def scenario() -> None:
        async with EmbeddedTriton(repository, ["size"], tmp_path) as triton:
            assert triton.pid is not None
            os.kill(triton.pid, signal.SIGKILL)
            deadline_s = time.monotonic() + _DEADLINE_S
            while triton.pid is not None and time.monotonic() < deadline_s:
                await asyncio.sleep(0.05)
            await triton.start()
            assert triton.pid is not None

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        asyncio.run(scenario())
        gc.collect()


def test_it_does_not_outlive_an_owner_that_was_killed(repository: Path, tmp_path: Path) -> None:
    """SIGKILL of the owner ends the server and its stub."""
    owner = textwrap.dedent(
        f"""
        import asyncio, pathlib
        from pipeline.embedded import EmbeddedTriton
        async def main():
            repository, home = pathlib.Path({str(repository)!r}), pathlib.Path({str(tmp_path)!r})
            async with EmbeddedTriton(repository, ["size"], home) as triton:
                print(triton.pid, flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        running = family(int(process.stdout.readline()))
        process.kill()
    assert are_gone(running)
    deadline = time.monotonic() + _DEADLINE_S
    while swept := list(Path("/dev/shm").glob(f"sluice_{process.pid}_*")):
        assert time.monotonic() < deadline, swept
        time.sleep(0.02)


def test_a_profile_picks_another_configuration(repository: Path, tmp_path: Path) -> None:
    """`profile` makes each model take `configs/<profile>.pbtxt`."""
    configs = repository / "size" / "configs"
    configs.mkdir()
    (configs / "single.pbtxt").write_text(_CONFIG.replace("max_batch_size: 8", "max_batch_size: 1"))

    async def scenario() -> int:
        async with (
            serving(EmbeddedTriton(repository, ["size"], tmp_path, profile="single")) as triton,
            triton_aio.InferenceServerClient(triton.grpc_address) as client,
        ):
            found = await client.get_model_config("size")
            return int(found.config.max_batch_size)

    assert asyncio.run(scenario()) == 1


def test_folders_with_spaces_serve(repository: Path, tmp_path: Path) -> None:
    """Neither the model's folder nor the server's need a name that a shell leaves alone."""
    odd = repository.rename(tmp_path / "my (models)")

    async def scenario() -> int:
        async with serving(EmbeddedTriton(odd, ["size"], tmp_path / "my data")) as triton:
            return await size_of(triton.grpc_address, "four")

    assert asyncio.run(scenario()) == 4


def test_a_model_that_cannot_be_loaded_is_quoted(repository: Path, tmp_path: Path) -> None:
    """The server's own reason is in the error, without the noise around it."""
    triton = EmbeddedTriton(repository, ["size", "broken"], tmp_path)
    with pytest.raises(EmbeddedFailed, match="Triton did not start") as caught:
        asyncio.run(triton.start())
    assert "No module named 'a_module_that_nobody_has'" in caught.value.tail
    assert "CudaDriverHelper" not in caught.value.tail
    assert "install what it imports" in caught.value.remedy
    assert triton.pid is None


def test_a_model_that_does_not_exist_is_named(repository: Path, tmp_path: Path) -> None:
    """A wrong model name is refused at once, and the right ones are listed."""
    with pytest.raises(EmbeddedFailed, match=r"no model 'sise'.*models there are: broken, size"):
        asyncio.run(EmbeddedTriton(repository, ["sise"], tmp_path).start())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.setattr("importlib.metadata.version", lambda _n: "2.1.0"), "numpy 2.1.0"),
        (lambda m: m.setattr("platform.libc_ver", lambda: ("glibc", "2.31")), "2.31"),
        (lambda m: m.setattr("platform.libc_ver", lambda: ("", "")), "GNU C library"),
        (lambda m: m.setattr(wheel, "_NEWEST_PYTHON", (3, 10)), "cannot embed Python"),
        (lambda m: m.setattr("sysconfig.get_config_var", lambda _n: "/no"), "libpython"),
        (lambda m: m.setattr("importlib.util.find_spec", lambda _n: None), "no server"),
    ],
)
def test_a_host_that_does_not_fit_is_told_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
    message: str,
) -> None:
    """Each thing that the host may lack is named before anything starts."""
    change(monkeypatch)
    with pytest.raises(EmbeddedFailed, match=message) as caught:
        wheel.find_triton(tmp_path)
    assert caught.value.remedy.startswith(("Install", "Use"))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read())
