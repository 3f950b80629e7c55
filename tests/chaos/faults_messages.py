"""Faults of what is published: nothing but poison."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tests.chaos.catalogue import Scene, Seen, fault
from tests.support import places


@fault(
    "poison-everywhere",
    heals="limits.dead_letter_ratio = 1, the worker started again",
    lasts_s=1.0,
    variables={"SLUICE_LIMITS__DEAD_LETTER_COUNT": "50", "SLUICE_LIMITS__DEAD_LETTER_WINDOW": "60"},
    seen=Seen(alert="WorkerNotReady", down=True, said=("sluice dlq ls",), exit=5,
              metric="sluice_dead_letters_total"),
)  # fmt: skip
async def poison_everywhere(scene: Scene) -> AsyncIterator[None]:
    """Every message is malformed: the bound on dead letters stops the worker."""
    scene.load.malformed_every = 1
    await places.ended(scene.worker, within_s=30.0)
    yield
    scene.load.malformed_every = 50
    await scene.place.start_worker(SLUICE_LIMITS__DEAD_LETTER_RATIO="1")
