"""Specification of the chained log: whatever fails, what it wrote is proved by its heads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import chain, codec
from pipeline.audit_proof import Proof, Seen, Span
from pipeline.audit_verify import Heads, Verifier
from pipeline.audit_writer import ChainedLog
from pipeline.chain import ChainHead, ChainState
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.events import Outcome
from pipeline.ports import Outgoing
from pipeline.resources import shipped
from tests.support import golden_records as golden

SCHEMAS = codec.load_schemas(shipped("schemas"))
UNLINKED = codec.encode_outcome(Outcome(verdict=golden.VERDICT, audit=golden.AUDIT), SCHEMAS)[1]
AWAY = DependencyUnavailable("no answer", remedy="Start it")
NEVER = Misconfigured("too large", remedy="Raise the limit")
FINE, FULL, REFUSED, WRITTEN, LOST, NOWHERE = ENDS = (
    "fine", "full", "refused", "written", "lost", "nowhere",
)  # fmt: skip


@dataclass(slots=True)
class Broker:
    """Two partitions in memory; a script says how each append ends.

    full: one record fits; refused: the call fails; written: it is written and
    not acknowledged; lost: one record, neither; nowhere:
    acknowledged, and the broker cannot tell where.
    """

    script: list[str] = field(default_factory=list)
    logs: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))
    error: Exception = AWAY

    async def partitions(self, topic: str, keys: Sequence[bytes | None]) -> list[int]:
        """By the key's last byte."""
        return [(key or b"0")[-1] % 2 for key in keys]

    async def append(
        self, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> tuple[int, asyncio.Future[int]]:
        """As the script says, after others had their turn."""
        await asyncio.sleep(0)
        end = self.script.pop(0) if self.script else FINE
        if end == REFUSED:
            raise self.error
        count = 1 if end in {FULL, LOST} else len(records)
        log = self.logs[partition]
        offset = len(log)
        log += [record.value or b"" for record in records[:count] if end != LOST]
        acknowledged = asyncio.get_running_loop().create_future()
        if end in {WRITTEN, LOST}:
            acknowledged.set_exception(self.error)
        else:
            acknowledged.set_result(-1 if end == NOWHERE else offset)
        return count, acknowledged

    def proof(self, heads: Sequence[ChainHead]) -> Proof:
        """What a verifier says of both partitions."""
        spans = [
            Span(partition=n, start=0, end=len(log), log_start=0, log_end=len(log))
            for n, log in enumerate(self.logs)
        ]
        verifier = Verifier(spans, Heads(heads))
        for partition, log in enumerate(self.logs):
            for offset, frame in enumerate(log):
                link, hashed = codec.link(frame, SCHEMAS), chain.digest(codec.body(frame))
                verifier.feed(Seen(partition=partition, offset=offset, link=link, hash=hashed))
        return verifier.finish()


@pytest.fixture(autouse=True, scope="module")
def _no_pauses() -> Iterator[None]:
    """Tries again at once."""
    with stamina.set_testing(True, attempts=50):
        yield


def _log(broker: Broker) -> ChainedLog:
    return ChainedLog("audit", appender=broker, schemas=SCHEMAS, worker_id="w/1")


def _events(*keys: str) -> list[Outgoing]:
    return [Outgoing(topic="audit", key=key.encode(), value=UNLINKED, headers=()) for key in keys]


batches = st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), min_size=1, max_size=5)
ends = st.lists(st.sampled_from(ENDS), max_size=12)


@settings(deadline=None)
@given(written=batches, script=ends)
async def test_whatever_fails_the_log_is_proved(
    written: list[list[str]], script: list[str]
) -> None:
    """Side by side, every event is acknowledged in a chain, and all chains hold."""
    broker = Broker(script)
    log = _log(broker)
    await asyncio.gather(*(log.write(_events(*keys)) for keys in written))
    await log.close(1.0)
    heads = log.heads()
    proof = broker.proof(heads)
    assert proof.proved, proof.breaks
    assert not any(head.state is ChainState.OPEN for head in heads)
    held = sum(head.tip.sequence + 1 for head in heads)
    assert held == sum(map(len, written))


@settings(deadline=None)
@given(written=batches, script=ends, turns=st.lists(st.integers(0, 6), min_size=5, max_size=5))
async def test_whoever_is_cancelled_the_log_is_proved(
    written: list[list[str]], script: list[str], turns: list[int]
) -> None:
    """A drain that ends in the middle of anything leaves no gap in a chain."""
    broker = Broker(script)
    log = _log(broker)
    writing = [asyncio.create_task(log.write(_events(*keys))) for keys in written]
    for task, number in zip(writing, turns, strict=False):
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    await log.write(_events("a", "b"))
    await log.close(1.0)
    proof = broker.proof(log.heads())
    assert proof.proved, proof.breaks


async def test_a_quiet_log_has_one_closed_chain_a_partition() -> None:
    """Its heads hold everything."""
    broker = Broker()
    log = _log(broker)
    for _ in range(3):
        await log.write(_events("a", "b", "b"))
    await log.close(1.0)
    assert [(h.partition, h.tip.sequence, h.offset, h.state) for h in log.heads()] == [
        (1, 2, 2, "closed"),
        (0, 5, 5, "closed"),
    ]


async def test_two_starts_write_two_chains() -> None:
    """A restart never goes on with a chain it did not see end."""
    broker = Broker()
    for _ in range(2):
        await _log(broker).write(_events("a"))
    links = [codec.link(frame, SCHEMAS) for frame in broker.logs[1]]
    assert len({link.chain for link in links if link}) == 2
    assert [link.sequence for link in links if link] == [0, 0]


async def test_an_event_that_can_never_be_written_is_no_retry() -> None:
    """The worker must stop and say so."""
    broker = Broker([REFUSED], error=NEVER)
    with pytest.raises(Misconfigured):
        await _log(broker).write(_events("a"))
    assert broker.logs == ([], [])


async def test_a_cancelled_writer_leaves_a_provable_log() -> None:
    """What it had queued is followed to its end without it."""
    broker = Broker()
    log = _log(broker)
    writing = asyncio.create_task(log.write(_events("a", "a")))
    while not broker.logs[1]:
        await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await log.write(_events("a"))
    await log.close(1.0)
    (head,) = log.heads()
    assert (head.tip.sequence, head.state) == (2, "closed")
    assert broker.proof([head]).proved


async def test_chains_that_ended_are_forgotten_once_written_down() -> None:
    """Memory does not grow with the number of breaks."""
    broker = Broker([WRITTEN])
    log = _log(broker)
    await log.write(_events("a"))
    broken, growing = log.heads()
    assert (broken.state, growing.state) == ("broken", "open")
    log.forget([broken.chain, growing.chain])
    assert log.heads() == [growing]
