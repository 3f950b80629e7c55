"""What all contenders share: the broker, the stand-in for Triton, the input."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from loadtest.bench import guard, messages
from pipeline import settings, wiring
from pipeline.adapters.kafka_topics import create_topics
from pipeline.embedded import EmbeddedKafka
from pipeline.embedded.loopback import HOST, free_ports
from pipeline.embedded.process import ManagedProcess
from pipeline.events import Message
from pipeline.settings import Settings, home

PARTITIONS: Final = 4
_INPUTS: Final = ("prompts", "completions")
_OUTPUTS: Final = ("verdicts", "audit", "dead_letters")
_REMEDY: Final = "Read its log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A broker with the input in it, and a stand-in that answers."""

    common: Mapping[str, Mapping[str, Any]]
    messages: int
    value_bytes: int

    @staticmethod
    def log(name: str) -> Path:
        """A process's log; it outlives the run, so that a failure can be read."""
        return home() / "bench-logs" / f"{name}.log"

    def entrance(self, name: str) -> dict[str, Mapping[str, Any]]:
        """Settings of one run: a fresh group, output topics of its own."""
        own = f"{name}-{uuid.uuid4().hex[:8]}"
        return {
            **self.common,
            "kafka": {**self.common["kafka"], "group": own},
            "topics": {**self.common["topics"], **_named(_OUTPUTS, own)},
            "worker": {"id": own, "http_port": free_ports(1)[0]},
        }


def _named(roles: Sequence[str], own: str) -> dict[str, str]:
    return {role: f"{role}-{own}" for role in roles}


def variables(chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """This process's environment with its own settings replaced by these.

    A settings file is still read; what is chosen here is stronger.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    # A section as one JSON value: only there can "none" be said, against what a file says.
    return kept | {
        f"SLUICE_{section}".upper(): orjson.dumps(keys).decode() for section, keys in chosen.items()
    }


@asynccontextmanager
async def open_scene(
    kafka: EmbeddedKafka,
    folder: Path,
    count: int,
    *,
    partitions: int = PARTITIONS,
    chars: int = messages.TEXT_CHARS,
) -> AsyncIterator[Scene]:
    """Start the stand-in and publish `count` messages of `chars` to a running broker."""
    own = f"bench-{uuid.uuid4().hex[:8]}"
    repository = guard.make(folder / "models")
    async with _stand_in() as triton:
        common: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "topics": {"partitions": partitions, **_named((*_INPUTS, *_OUTPUTS), own)},
            "triton": {"url": triton},
            # Every message is asked about, by each contender: none may recall an answer.
            "guards": {"repository": str(repository), "names": [guard.NAME], "cache_entries": 0},
        }
        loaded = settings.load(common)
        await create_topics(loaded.kafka, loaded.topics)
        value_bytes = await _preload(loaded, messages.make(count, chars=chars))
        yield Scene(common=common, messages=count, value_bytes=value_bytes)


async def _preload(loaded: Settings, made: list[Message]) -> int:
    return await messages.preload(loaded, made, wiring.load_schemas())


@asynccontextmanager
async def _stand_in() -> AsyncIterator[str]:
    """Its `address:port`, while it runs."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "loadtest.bench.standin"]
    command += [str(port), str(len(guard.LABELS)), guard.MODEL_DIGEST]
    process = ManagedProcess("stand-in", command, log=Scene.log("stand-in"), remedy=_REMEDY)
    await process.start()
    try:
        await process.until(lambda: _listens(port), timeout_s=30.0)
        yield f"{HOST}:{port}"
    finally:
        await process.stop()


async def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0
