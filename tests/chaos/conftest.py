"""A guard that takes orders, its server, and a scene for each fault."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path

import pytest

from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.loopback import HOST, free_ports
from pipeline.settings import home
from tests.chaos.catalogue import Broker, Fault, Scene
from tests.chaos.load import Load
from tests.support import places, tiny_guard
from tests.support.proxy import Proxy

OpenScene = Callable[[Fault], AbstractAsyncContextManager[Scene]]

LOAD_PER_S = 200
_DISK_MIB = 160


@pytest.fixture(scope="session")
def chaos_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository of the suite's own: its guard is told to misbehave."""
    return tiny_guard.make(tmp_path_factory.mktemp("chaos-models"))


@pytest.fixture(scope="session")
async def chaos_triton(
    chaos_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedTriton]:
    """A Triton of the suite's own, which faults may kill."""
    server = EmbeddedTriton(chaos_repository, ["tiny"], tmp_path_factory.mktemp("chaos-triton"))
    async with server as triton:
        yield triton
        await triton.kill()  # an orderly stop takes three seconds longer


@pytest.fixture
def open_scene(
    kafka: EmbeddedKafka, chaos_triton: EmbeddedTriton, chaos_repository: Path, tmp_path: Path
) -> OpenScene:
    """Opens the stack that a fault wants, with its workers running and its load ready."""

    @asynccontextmanager
    async def opened(fault: Fault) -> AsyncIterator[Scene]:
        async with AsyncExitStack() as stack:
            proxy, broker = await _broker(stack, fault, kafka, tmp_path)
            tiny_guard.order(chaos_repository, "pause 0.03")  # a small guard's usual pace
            await chaos_triton.start()
            place = await stack.enter_async_context(
                places.open_place(
                    tmp_path,
                    kafka=f"{HOST}:{proxy.port}" if proxy else broker.bootstrap_servers,
                    triton=chaos_triton.grpc_address,
                    repository=chaos_repository,
                    **fault.variables,
                )
            )
            for _ in range(fault.workers):
                await place.start_worker()
            yield Scene(
                place=place,
                load=Load(place.settings, per_s=LOAD_PER_S, malformed_every=fault.malformed_every),
                kafka=broker,
                triton=chaos_triton,
                repository=chaos_repository,
                proxy=proxy,
            )

    return opened


async def _broker(
    stack: AsyncExitStack, fault: Fault, shared: EmbeddedKafka, folder: Path
) -> tuple[Proxy | None, EmbeddedKafka]:
    """The broker a fault wants, and the proxy before it, if any."""
    data, proxy = folder / "kafka", None
    match fault.broker:
        case Broker.SHARED:
            return None, shared
        case Broker.OWN:
            broker = EmbeddedKafka(home(), data)
        case Broker.PROXIED:
            (port,) = free_ports(1)
            proxy = await stack.enter_async_context(Proxy(port))
            advertised = {"advertised.listeners": f"PLAINTEXT://{HOST}:{proxy.port}"}
            broker = EmbeddedKafka(home(), data, port, overrides=advertised)
        case _:
            stack.enter_context(_small_disk(data / "topics"))
            broker = EmbeddedKafka(home(), data, overrides={"log.segment.bytes": 8 * 1024**2})
    await stack.enter_async_context(broker)
    return proxy, broker


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A disk in memory, mounted at a folder; only root can."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
