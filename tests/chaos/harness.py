"""One fault from start to end: load, injection, healing, recovery, account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from pipeline import audit_check, codec, headers
from pipeline.adapters.kafka import KafkaReader, Record
from pipeline.audit_proof import Proof
from pipeline.errors import SluiceError
from pipeline.events import Kind, Position
from pipeline.ranges import Range
from tests.chaos.account import Account, Reckoning
from tests.chaos.catalogue import Fault, Scene
from tests.chaos.load import MALFORMED, NUMBER
from tests.chaos.watch import Watch
from tests.support.places import SCHEMAS, Place

_WARM_MESSAGES: Final = 200
_LOAD_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a fault came to: the table's row, and everything that must be empty."""

    fault: str
    account: Account
    chains: int
    lasted_s: float
    recovered_s: float
    rss_mib: float
    grew_mib: float
    failing: tuple[str, ...]
    broken: tuple[str, ...]


async def endure(fault: Fault, scene: Scene, *, lasts_s: float) -> Result:
    """Run a fault through; raises nothing that the product did, `broken` tells it."""
    async with scene.load:
        await scene.load.reach(_WARM_MESSAGES)
        async with Watch(scene.place, fault.seen) as watch:
            began_s = time.monotonic()
            async with fault.injected(scene):
                await asyncio.sleep(lasts_s)
                if not fault.unreadable:
                    await scene.place.no_commit_ahead()
                lasted_s = time.monotonic() - began_s
            healed_s = time.monotonic()
            await asyncio.sleep(_LOAD_AFTER_S)
            await scene.load.stop()
            in_time = await caught_up(scene.place, within_s=fault.recovers_within_s)
            recovered_s = time.monotonic() - healed_s
            ready = await _all_ready(scene)
        account = await reckon(scene.place, sent=scene.load.sent)
        proof = await audit_check.verify(scene.place.settings, Range())
    return Result(
        fault=fault.name,
        account=account,
        chains=len(proof.chains),
        lasted_s=round(lasted_s, 1),
        recovered_s=round(recovered_s, 1),
        rss_mib=round(watch.rss_mib[1]),
        grew_mib=round(watch.rss_mib[1] - watch.rss_mib[0]),
        failing=tuple(sorted(watch.failing)),
        broken=(
            *_broken(fault, account, watch, in_time=in_time, ready=ready),
            *unproved(proof, account),
        ),
    )


def _broken(
    fault: Fault, account: Account, watch: Watch, *, in_time: bool, ready: bool
) -> list[str]:
    """Every promise that was not kept, in words."""
    first, highest = watch.rss_mib
    return [
        *(f"{name}: {count}" for name, count in account.faults().items()),
        *(f"a commit went back, {step}" for step in watch.went_back),
        *(f"the operator did not see: {what}" for what in watch.missed()),
        *([] if in_time else [f"lag is not 0 after {fault.recovers_within_s:g} s"]),
        *([] if ready else ["a worker is not ready in the end"]),
        *([] if account.versions == fault.versions else [f"versions {account.versions}"]),
        *([] if len(account.policies) == 1 else [f"policies {account.policies}"]),
        *(
            [f"memory rose from {first:.0f} to {highest:.0f} MiB"]
            if highest - first > fault.memory_within_mib
            else []
        ),
    ]


def unproved(proof: Proof, account: Account) -> list[str]:
    """Where the audit log's chains are not proved, in words."""
    return [
        *(f"audit {each.partition}:{each.offset}: {each.detail}" for each in proof.breaks),
        *(
            [f"{proof.before_chaining} audit events without a link"]
            if proof.before_chaining
            else []
        ),
        *([] if proof.events >= account.distinct_ids else [f"{proof.events} chained events"]),
    ]


async def caught_up(place: Place, *, within_s: float) -> bool:
    """Whether the group commits up to the end of both topics in time."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        try:
            if await place._all_committed():
                return True
        except (SluiceError, TimeoutError, OSError):
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.1)
    return False


async def _all_ready(scene: Scene) -> bool:
    """Whether the workers that should run say that they are ready, within ten seconds."""
    running = [worker for worker in scene.workers if worker.status is None]
    deadline_s = time.monotonic() + 10.0
    while time.monotonic() < deadline_s:
        if running and all([await worker.ready() for worker in running]):
            return True
        await asyncio.sleep(0.2)
    return False


async def reckon(place: Place, *, sent: int) -> Account:
    """Read everything, inputs first, and count it."""
    reckoning, named = Reckoning(), place.settings.topics
    async for record in _records(place, *(place.topic(kind) for kind in Kind)):
        text = headers.first(record.headers, NUMBER) or ""
        number = int(text.rstrip(MALFORMED.decode())) if text else None
        reckoning.input(_at(record), number, malformed=text.endswith(MALFORMED.decode()))
    async for record in _records(place, named.verdicts):
        reckoning.verdict(codec.decode_verdict(record.value or b"", SCHEMAS))
    async for record in _records(place, named.dead_letters):
        letter = headers.dead_letter(key=None, value=None, headers=record.headers)
        reckoning.dead_letter(letter.position)
    async for record in _records(place, named.audit):
        reckoning.audit(codec.decode_audit(record.value or b"", SCHEMAS).verdict.source)
    return reckoning.account(sent=sent)


async def _records(place: Place, *topics: str) -> AsyncIterator[Record]:
    async with KafkaReader(place.settings.kafka) as reader:
        for topic in topics:
            async for record in reader.read(topic, await reader.bounds(topic)):
                yield record


def _at(record: Record) -> Position:
    return Position(topic=record.topic, partition=record.partition, offset=record.offset)
