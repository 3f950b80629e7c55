"""Specification of the flow's end: acknowledged only what the broker acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import stream
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.events import Judgement, Message
from pipeline.ports import Inference, Outgoing
from pipeline.scoring import Scored

from .fakes import (
    TOPICS,
    Bench,
    Commits,
    MemoryPublisher,
    ScriptedClassifier,
    TrustingScorer,
    by_words,
    json_value,
    message,
)
from .test_flow_outage import refuse_poison

LOST = DependencyUnavailable("the broker did not acknowledge", remedy="Start it")
NEVER = Misconfigured("the broker refuses this record", remedy="Raise max.message.bytes")


async def test_publishing_is_repeated_until_acknowledged(bench: Bench) -> None:
    """A broker that is away delays the outcome and loses nothing; neither part comes twice."""
    bench.publisher.failures = [LOST] * 7
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", "unsafe"))
    assert bench.publisher.calls == 7 + 2
    assert len(bench.verdicts()) == len(bench.publisher.to(TOPICS.audit)) == 2
    assert bench.commits.acknowledged == [0, 1]


async def test_dead_letters_are_repeated_until_acknowledged(bench: Bench) -> None:
    """The dead-letter topic is no place to lose a message."""
    bench.publisher.failures = [LOST] * 3
    flow = bench.flow()
    await flow.judge([bench.inbound(flow, 0, b"{")])
    assert len(bench.publisher.to(TOPICS.dead_letters)) == 1
    assert bench.commits.acknowledged == [0]


@pytest.mark.parametrize("value", [json_value(), b"{"])
async def test_nothing_is_acknowledged_that_can_never_be_published(
    bench: Bench, value: bytes
) -> None:
    """A refused verdict or dead letter leaves its message for redelivery."""
    bench.publisher.failures = [NEVER]
    flow = bench.flow()
    with pytest.raises(Misconfigured):
        await flow.judge([bench.inbound(flow, 0, value)])
    assert bench.commits.acknowledged == []
    assert len(flow.ledger) == 1


class Watching(MemoryPublisher):
    """A publisher that notes what was acknowledged before its own work was done."""

    def __init__(self, commits: Commits) -> None:
        super().__init__()
        self.commits = commits
        self.topics: set[str] = set()
        self.early: list[int] = []

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Note, then keep the records."""
        named = {record.key for record in records}
        self.topics |= {record.topic for record in records}
        self.early += [n for n in self.commits.acknowledged if f"m-{n}".encode() in named]
        await super().publish(records)


async def test_a_message_is_acknowledged_after_its_outcome_and_not_before(bench: Bench) -> None:
    """At the moment of publishing none of the published inputs is acknowledged."""
    watching = Watching(bench.commits)
    bench.publisher = watching
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", "unsafe", "minor"))
    assert watching.topics == {TOPICS.verdicts, TOPICS.audit}
    assert watching.early == []
    assert bench.commits.acknowledged == [0, 1, 2]


async def test_batches_that_end_out_of_order_are_acknowledged_in_order(bench: Bench) -> None:
    """The second batch ends first: its offsets wait for those ahead of them."""
    flow = bench.flow()
    batch = bench.batch(flow, "fine", "unsafe", "fine", "fine")
    await flow.judge(batch[2:])
    assert len(bench.verdicts()) == 2
    assert bench.commits.acknowledged == []
    await flow.judge(batch[:2])
    assert bench.commits.acknowledged == [0, 1, 2, 3]


inputs = st.lists(
    st.sampled_from(["fine", "unsafe", "poison", "nan", " ", "{"]), min_size=1, max_size=12
)
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(texts=inputs, size=st.integers(1, 5), failures=st.integers(0, 4), data=st.data())
async def test_every_input_ends_exactly_once_whatever_happens(
    bench: Bench, texts: list[str], size: int, failures: int, data: st.DataObject
) -> None:
    """However inputs and batches mix and the broker fails, each input has one outcome."""
    bench.commits, bench.publisher = Commits(), MemoryPublisher([LOST] * failures)
    bench.classifier.scripts = [_refuse_or_lone_nan]
    flow = bench.flow()
    taken = [
        bench.inbound(flow, n, b"{" if text == "{" else json_value(text, message_id=f"m-{n}"))
        for n, text in enumerate(texts)
    ]
    batches = [taken[start : start + size] for start in range(0, len(taken), size)]
    for batch in data.draw(st.permutations(batches)):
        await flow.judge(batch)
    assert sorted(_outcomes(bench)) == list(range(len(texts)))
    assert bench.commits.acknowledged == list(range(len(texts)))
    assert len(flow.ledger) == 0


def _refuse_or_lone_nan(rows: Sequence[Sequence[int]]) -> Any:
    """Refuses poison; a call of nothing but NaN would wait for ever, so it answers low."""
    answer = refuse_poison(rows)
    every_nan = not isinstance(answer, Exception) and np.isnan(answer).any(axis=1).all()
    return by_words([[] for _ in rows]) if every_nan else answer


def _outcomes(bench: Bench) -> list[int]:
    """The offset of each outcome: verdicts and dead letters."""
    letters = [
        int(dict(r.headers)["dlq_original_offset"]) for r in bench.publisher.to(TOPICS.dead_letters)
    ]
    return letters + [v.source.offset for v in bench.verdicts()]


class LongWaits(ScriptedClassifier):
    """A classifier whose calls with full windows, a long text's, wait until let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def infer(
        self, guard: str, rows: Sequence[Sequence[int]], *, length: int, pad_id: int
    ) -> Inference:
        """As scripted, once a full window may pass."""
        if any(len(row) == 16 for row in rows):
            await self.gate.wait()
        return await super().infer(guard, rows, length=length, pad_id=pad_id)


async def test_a_short_texts_verdict_does_not_wait_for_a_long_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one batch, the short text's verdict is out while the long one is still scored."""
    monkeypatch.setattr(stream, "LONG_CHARS", 50)
    bench.classifier = classifier = LongWaits()
    flow = bench.flow()
    judging = asyncio.create_task(flow.judge(bench.batch(flow, "fine " * 20, "fine")))
    while not bench.publisher.to(TOPICS.verdicts):
        await asyncio.sleep(0.001)
    assert [verdict.source.offset for verdict in bench.verdicts()] == [1]
    assert bench.commits.acknowledged == []  # offset 0 holds the commit back
    classifier.gate.set()
    await judging
    assert bench.commits.acknowledged == [0, 1]


async def test_what_was_scored_before_waits_for_no_guard(bench: Bench) -> None:
    """In a batch with a new text it has its verdict while the new one is asked."""
    asked = asyncio.Event()

    class Remembers(TrustingScorer):
        def recall(self, messages: Sequence[Message]) -> list[tuple[Judgement, ...] | None]:
            return [known if each.text == "fine" else None for each in messages]

        async def score(self, messages: Sequence[Message]) -> list[Scored]:
            assert [each.text for each in messages] == ["unsafe"]
            await asked.wait()
            return await super().score(messages)

    (known,) = await bench.scorer().score([message("fine")])
    assert isinstance(known, tuple)
    flow = bench.flow()
    flow._scorer = Remembers([bench.guard], bench.classifier, bench.call_limits, bench.clock)
    judging = asyncio.create_task(flow.judge(bench.batch(flow, "unsafe", "fine")))
    async with asyncio.timeout(5):
        while not bench.verdicts():
            await asyncio.sleep(0)
    assert [verdict.message_id for verdict in bench.verdicts()] == ["m-1"]
    assert not judging.done()
    asked.set()
    await judging
    assert [verdict.message_id for verdict in bench.verdicts()] == ["m-1", "m-0"]
