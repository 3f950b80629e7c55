"""Faults of what is published: nothing but poison, and garbage where policies should be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from pipeline import policy_history
from pipeline.ports import Outgoing
from pipeline.resources import packaged
from tests.chaos.catalogue import Scene, Seen, fault
from tests.support import places
from tests.support.places import SCHEMAS


@fault(
    "poison-everywhere",
    heals="limits.dead_letter_ratio = 1, the worker started again",
    lasts_s=1.0,
    variables={"SLUICE_LIMITS__DEAD_LETTER_COUNT": "50", "SLUICE_LIMITS__DEAD_LETTER_WINDOW": "60"},
    seen=Seen(
        alert="WorkerNotReady", down=True, said=("sluice dlq ls",), exit=5,
        metric="sluice_dead_letters_total",
    ),
)  # fmt: skip
async def poison_everywhere(scene: Scene) -> AsyncIterator[None]:
    """Every message is malformed: the bound on dead letters stops the worker."""
    scene.load.malformed_every = 1
    await places.ended(scene.worker, within_s=30.0)
    yield
    scene.load.malformed_every = 50
    await scene.place.start_worker(SLUICE_LIMITS__DEAD_LETTER_RATIO="1")


@fault(
    "policy-topic-garbage",
    heals="nothing is to be done: each is refused, and the policy in force stays",
    lasts_s=3.0,
    seen=Seen(
        alert="PolicyRefused", said=("policy-refused",), metric="sluice_policy_refused_total",
        rises=4,
    ),
)  # fmt: skip
async def policy_topic_garbage(scene: Scene) -> AsyncIterator[None]:
    """Bytes, half a record, a false digest and an unknown activation in the policies topic."""
    topic = scene.place.settings.topics.policies
    await scene.place.publish(
        Outgoing(topic=topic, key=f"garbage-{number}".encode(), value=value, headers=())
        for number, value in enumerate(_garbage())
    )
    yield


def _garbage() -> Iterator[bytes]:
    text = packaged("policies", "default.toml").read_text()
    sound = policy_history.of_policy(
        text, name="default.toml", at=datetime.now(UTC), by="chaos", note=None
    )
    nowhere = policy_history.activation(sound, at=datetime.now(UTC), by="chaos", note=None)
    frame = policy_history.encode(sound, SCHEMAS)
    yield b"not a frame"
    yield frame[: len(frame) // 2]
    yield policy_history.encode(replace(sound, digest="sha256:" + "0" * 64), SCHEMAS)
    yield policy_history.encode(replace(nowhere, digest="sha256:" + "1" * 64), SCHEMAS)
