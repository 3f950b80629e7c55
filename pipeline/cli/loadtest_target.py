"""The stack that a load test runs against: one of its own, or one that is named."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pipeline import settings
from pipeline.adapters.triton import TritonClassifier
from pipeline.cli import console, session
from pipeline.errors import Misconfigured, SluiceError
from pipeline.settings import Settings

if TYPE_CHECKING:
    from loadtest.run import Target
    from loadtest.workload import Workload


class Chosen:
    """Which stack the arguments choose."""

    def __init__(
        self,
        *,
        embedded: bool,
        servers: str | None,
        triton: tuple[str, ...],
        worker: tuple[str, ...],
        processes: dict[str, int],
    ) -> None:
        self.embedded = embedded
        self.servers = servers
        self.triton = triton
        self.worker = worker
        self.processes = processes


def given(
    servers: str | None,
    triton: list[str] | None,
    worker: list[str] | None,
    watch: list[str] | None,
    *,
    embedded: bool,
) -> Chosen:
    """The stack that arguments name; raises Misconfigured when they contradict."""
    if embedded and (servers or triton or worker or watch):
        raise Misconfigured(
            "--embedded starts a stack of its own", remedy="Leave out the addresses of another"
        )
    urls = [*(triton or ()), *(worker or ())]
    if bad := next((url for url in urls if not url.startswith(("http://", "https://"))), None):
        raise Misconfigured(f"{bad!r} is no http address", remedy="Give http://HOST:PORT/metrics")
    return Chosen(
        embedded=embedded,
        servers=servers,
        triton=tuple(triton or ()),
        worker=tuple(worker or ()),
        processes=dict(_process(each) for each in watch or ()),
    )


def _process(text: str) -> tuple[str, int]:
    name, _, pid = text.partition("=")
    if not name or not pid.isdigit():
        raise Misconfigured(f"{text!r} is not NAME=PID", remedy="For example worker-1=4711")
    return name, int(pid)


@asynccontextmanager
async def opened(load: Workload, chosen: Chosen) -> AsyncIterator[Target]:
    """The stack under test; an embedded one lives as long as the block."""
    from loadtest.run import Target

    session.quiet()
    overrides: dict[str, Any] = {"topics": dict(load.topics)}
    if chosen.embedded:
        async with _embedded(load, overrides) as target:
            yield target
        return
    if chosen.servers:
        overrides["kafka"] = {"bootstrap_servers": chosen.servers}
    at = settings.load(overrides)
    yield Target(
        name=f"Kafka at {at.kafka.bootstrap_servers}",
        settings=at,
        overrides=overrides,
        triton_urls=chosen.triton,
        worker_urls=chosen.worker,
        processes=chosen.processes,
        triton_instances=await _instances(at),
    )


async def _instances(at: Settings) -> int:
    """How many instances of the guards a Triton server runs; 1 where none tells."""
    try:
        async with TritonClassifier(at.triton) as triton:
            return sum([await triton.instances(name) for name in at.guards.names])
    except SluiceError:
        return 1


@asynccontextmanager
async def _embedded(load: Workload, overrides: dict[str, Any]) -> AsyncIterator[Target]:
    from loadtest.run import Target
    from pipeline.embedded.scratch import scratch
    from pipeline.embedded.stack import EmbeddedStack

    overrides["topics"]["partitions"] = load.stack.partitions
    wanted = settings.load(overrides)
    # Workers read the topics' names from their environment, as any worker does.
    environ = {**os.environ, **{f"SLUICE_TOPICS__{k.upper()}": v for k, v in load.topics.items()}}
    home = settings.home()
    with scratch(home / "loadtest", prefix="stack-", say=console.note) as data:
        stack = EmbeddedStack(wanted, home=home, data=data, environ=environ, say=console.note)
        async with stack:
            for _ in range(load.stack.workers):
                await stack.start_worker()
            reached = overrides | stack.overrides()
            pids = {"kafka": stack.kafka.pid, "triton": stack.triton.pid}
            pids |= {f"worker-{n + 1}": worker.pid for n, worker in enumerate(stack.workers)}
            at = settings.load(reached)
            yield Target(
                name="embedded",
                settings=at,
                triton_instances=await _instances(at),
                overrides=reached,
                triton_urls=(f"http://{stack.triton.metrics_address}/metrics",),
                worker_urls=tuple(f"http://{each.address}/metrics" for each in stack.workers),
                processes={name: pid for name, pid in pids.items() if pid is not None},
            )
