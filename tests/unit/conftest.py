"""What every unit test shares: the shipped schemas, a tiny guard, quick retries."""

from __future__ import annotations

from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
import stamina
from hypothesis import settings

from pipeline import codec, policy_file, stream
from pipeline.policy import Policy
from pipeline.resources import packaged, shipped
from pipeline.scoring import Guard

from .fakes import Bench, FakeClock, write_guard

# Two shared cores make wall-clock deadlines per example meaningless.
settings.register_profile("unit", deadline=None, max_examples=100)
settings.load_profile("unit")


@pytest.fixture
def schemas() -> codec.Schemas:
    """The committed schemas, fresh for each test: they can learn."""
    return codec.load_schemas(shipped("schemas"))


@pytest.fixture(scope="session")
def shipped_policy() -> Policy:
    """The policy that ships."""
    path = packaged("policies", "default.toml")
    return policy_file.parse(path.read_text(), name=path.name)


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard with three labels and a tokenizer of a few whole words."""
    return write_guard(tmp_path_factory.mktemp("guard"))


class _Talker(StreamRequestHandler):
    """Greets in a protocol that is none of ours."""

    def handle(self) -> None:
        """Say one line, whatever is asked."""
        self.rfile.readline()
        self.wfile.write(b"SSH-2.0-greeting\r\n")


@pytest.fixture
def talker() -> Iterator[int]:
    """The port of a service that speaks no HTTP."""
    with ThreadingTCPServer(("127.0.0.1", 0), _Talker) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when told."""
    return FakeClock()


@pytest.fixture
def quick_retries() -> Iterator[None]:
    """Retries that follow at once, at most fifty of them."""
    with stamina.set_testing(True, attempts=50):
        yield


@pytest.fixture
def bench(  # noqa: PLR0917 - pytest passes fixtures by name
    schemas: codec.Schemas,
    guard: Guard,
    shipped_policy: Policy,
    clock: FakeClock,
    quick_retries: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    """A flow's surroundings in memory, under the shipped policy, without pauses."""
    monkeypatch.setattr(stream, "_pause_s", lambda _: 0.0)
    return Bench(schemas=schemas, guard=guard, policy=shipped_policy, clock=clock)
