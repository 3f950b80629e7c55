"""Who takes part: the worker as shipped and three other ways to do its work."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WORKER: Final = "sluice"
QUIX: Final = "quix"
BATCH: Final = 64
"""Messages that the asyncio peers judge together: as many as the worker does to begin with."""

QUIX_PYTHON: Final = Path(".sluice/bench/bin/python")
"""Where `make bench` installs Quix Streams: it wants an older pydantic than ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program that reads prompts and writes verdicts and audit events.

    `rows`: messages that it tokenises at a time.
    """

    name: str
    title: str
    module: tuple[str, ...]
    rows: int
    python: str = sys.executable

    @property
    def command(self) -> list[str]:
        """What to execute."""
        return [self.python, "-m", *self.module]


_PEERS: Final = "loadtest.bench.peers"
ALL: Final = (
    Contender(
        name=WORKER, title="Sluice worker, as shipped", module=("pipeline", "worker"), rows=BATCH
    ),
    Contender(
        name="faust",
        title=f"Faust agent: take({BATCH}), topic.send",
        module=(f"{_PEERS}.faust_agent",),
        rows=BATCH,
    ),
    Contender(
        name="raw", title="raw aiokafka loop, send_batch", module=(f"{_PEERS}.raw",), rows=BATCH
    ),
    Contender(
        name=QUIX,
        title="Quix Streams, a message a call",
        module=(f"{_PEERS}.quix",),
        rows=1,
        python=str(QUIX_PYTHON),
    ),
)
NAMES: Final = tuple(contender.name for contender in ALL)


async def why_absent(contender: Contender) -> str | None:
    """Why a contender cannot take part; None when it can."""
    if contender.name != QUIX:
        return None
    python = Path(contender.python)
    if not python.exists():
        return "Quix Streams is not installed: `make bench` does it"
    process = await asyncio.create_subprocess_exec(
        str(python),
        "-c",
        "import quixstreams, pipeline.codec",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode == 0:
        return None
    return (said.decode(errors="replace").strip().splitlines() or ["it ended at once"])[-1]
