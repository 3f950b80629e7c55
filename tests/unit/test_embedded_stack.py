"""The embedded stack as a whole: whose settings its workers get, and who watches it."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.embedded import EmbeddedFailed, EmbeddedKafka
from pipeline.embedded.loopback import HOST
from pipeline.embedded.process import ManagedProcess
from pipeline.embedded.stack import EmbeddedStack, EmbeddedWorker

_WITHIN_S = 60.0
_REFUSED = {"SLUICE_NONSENSE__KEY": "1"}  # a worker ends with status 2 about it
_PRODUCTION = """
[kafka]
bootstrap_servers = "kafka.example.org:9093"
security_protocol = "SASL_SSL"
username = "sluice"
password = "secret"
ca_file = "/etc/ca.pem"
instance_id = "pod-0"
group = "their-group"
[triton]
url = "triton.example.org:443"
tls = true
ca_file = "/etc/ca.pem"
[registry]
url = "https://registry.example.org"
"""


def stack_in(folder: Path, environ: Mapping[str, str]) -> EmbeddedStack:
    """A stack that has its ports, and of which nothing runs yet."""
    stack = EmbeddedStack(settings.load(), home=folder, data=folder, environ=environ)
    stack.kafka._choose_ports()
    stack.triton._choose_ports()
    return stack


def worker_in(folder: Path, environ: Mapping[str, str], port: int = 0) -> EmbeddedWorker:
    """A worker that was not launched."""
    return EmbeddedWorker("worker-1", port=port, log=folder / "log", environ=environ)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """The port of a server that answers whatever it is asked so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings file that leads elsewhere."""
    file = tmp_path / "production.toml"
    file.write_text(_PRODUCTION)
    monkeypatch.setenv("SLUICE_CONFIG", str(file))


def check_own(found: settings.Settings, stack: EmbeddedStack) -> None:
    """The settings lead to the stack, and keep what says nothing about addresses."""
    assert found.kafka.bootstrap_servers == stack.kafka.bootstrap_servers
    assert found.kafka.security_protocol == "PLAINTEXT"
    assert (found.triton.url, found.triton.tls) == (stack.triton.grpc_address, False)
    assert not found.registry.url
    assert found.kafka.group == "their-group"


@pytest.mark.usefixtures("production")
def test_overrides_leave_nothing_of_another_cluster(tmp_path: Path) -> None:
    """Neither encryption nor registry nor a static member's name stay."""
    stack = stack_in(tmp_path, os.environ)
    found = settings.load(stack.overrides())
    check_own(found, stack)
    assert found.kafka.instance_id is None


@pytest.mark.usefixtures("production")
def test_variables_leave_nothing_of_another_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `sluice up` tells to export is enough."""
    stack = stack_in(tmp_path, os.environ)
    for name, value in stack.variables().items():
        monkeypatch.setenv(name, value)
    check_own(settings.load(), stack)


def test_variables_are_only_addresses_where_the_settings_are_plain(tmp_path: Path) -> None:
    """Nobody is told to export what holds anyway."""
    assert set(stack_in(tmp_path, os.environ).variables()) == {
        "SLUICE_KAFKA__BOOTSTRAP_SERVERS",
        "SLUICE_TRITON__URL",
    }


@pytest.mark.usefixtures("production")
@pytest.mark.parametrize(
    "theirs",
    [
        {},
        {"SLUICE_KAFKA__INSTANCE_ID": "pod-1"},
        {"SLUICE_KAFKA": '{"group": "their-group", "instance_id": "pod-2"}'},
    ],
)
async def test_workers_get_nothing_of_another_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str]
) -> None:
    """Two workers cannot be the same static member, wherever its name was said."""
    given: list[Mapping[str, str]] = []

    class Stub:
        address = HOST

        def __init__(self, _name: str, *, environ: Mapping[str, str], **_: object) -> None:
            given.append(environ)

        async def start(self) -> None: ...

    monkeypatch.setattr("pipeline.embedded.stack.EmbeddedWorker", Stub)
    stack = stack_in(tmp_path, {**os.environ, **theirs})
    await stack.start_worker()
    for name, value in given[0].items():
        monkeypatch.setenv(name, value)
    found = settings.load()
    check_own(found, stack)
    assert found.kafka.instance_id is None


async def test_a_folder_named_as_the_package_does_not_shadow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is Sluice's own, wherever the command is given."""
    theirs = tmp_path / "pipeline"
    theirs.mkdir()
    (theirs / "__init__.py").touch()
    (theirs / "__main__.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    worker = worker_in(tmp_path, {**os.environ, **_REFUSED})
    with pytest.raises(EmbeddedFailed, match="ended with status 2 while starting"):
        await worker.start(ready_within_s=_WITHIN_S)


async def test_a_part_that_ends_by_itself_is_an_error(tmp_path: Path) -> None:
    """Whoever waits for the stack's end learns which part, and reads its last words."""
    stack = stack_in(tmp_path, os.environ)
    worker = worker_in(tmp_path, {**os.environ, **_REFUSED})
    stack.workers.append(worker)
    await worker.launch()
    with pytest.raises(EmbeddedFailed, match="worker-1 ended by itself with status 2") as caught:
        await asyncio.wait_for(stack.ended(), _WITHIN_S)
    assert "SLUICE_NONSENSE__KEY" in caught.value.tail
    await stack.stop()


async def test_another_workers_answer_is_not_ours(tmp_path: Path) -> None:
    """A worker whose port was taken fails, though what took it says it is ready."""
    async with answering(b"HTTP/1.0 200 OK\r\n\r\n") as port:
        worker = worker_in(tmp_path, {**os.environ, **_REFUSED}, port)
        with pytest.raises(EmbeddedFailed, match="ended with status 2 while starting"):
            await worker.start(ready_within_s=_WITHIN_S)


async def test_another_brokers_answer_is_not_ours(tmp_path: Path) -> None:
    """A broker that answers on the port serves only if it is the one that we started."""
    async with answering(struct.pack(">iii", 8, 1, 1)) as port:
        kafka = EmbeddedKafka(tmp_path, tmp_path, port)
        kafka._broker = ManagedProcess("Kafka", ["sleep", "600"], log=kafka.log, remedy="")
        await kafka._broker.start()
        try:
            assert not await kafka._serves()
        finally:
            await kafka._broker.kill()
