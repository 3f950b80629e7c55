"""Specification of the flow when the guard is away, refuses, or dead letters abound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline import stream
from pipeline.dead_letters import Bound
from pipeline.errors import DeadLetterLimit, Reason, Rejected, SluiceError
from pipeline.events import Action, Status

from .fakes import TOPICS, WORD_IDS, Bench, away, by_words, json_value


def away_for(bench: Bench, seconds: float) -> Any:
    """A script: the guard does not answer, and finding that out takes a while."""

    def script(rows: Sequence[Sequence[int]]) -> SluiceError:
        bench.clock.advance(seconds)
        return away(rows)

    return script


def refuse_poison(rows: Sequence[Sequence[int]]) -> np.ndarray[Any, Any] | SluiceError:
    """A script: calls with the word poison are refused for good."""
    if any(WORD_IDS["poison"] in row for row in rows):
        return Rejected(Reason.GUARD_REFUSED, "the guard refused this input", remedy="Report it")
    return by_words(rows)


async def test_while_the_guard_is_away_messages_are_held(bench: Bench) -> None:
    """Nothing is published before it answers, and then each gets its real verdict."""
    seen: list[tuple[int, list[int]]] = []

    def watching(rows: Sequence[Sequence[int]]) -> SluiceError:
        seen.append((len(bench.publisher.records), list(bench.commits.acknowledged)))
        return away_for(bench, 60.0)(rows)  # type: ignore[no-any-return]

    bench.classifier.scripts = [watching, watching, watching, by_words]
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", "unsafe"))
    assert seen == [(0, [])] * 3
    assert [v.action for v in bench.verdicts()] == [Action.ALLOW, Action.BLOCK]
    assert {v.status for v in bench.verdicts()} == {Status.SCORED}
    assert bench.commits.acknowledged == [0, 1]


async def test_readiness_follows_the_guard(bench: Bench) -> None:
    """Not ready while it is away, ready once it answers."""
    states = []

    def watching(rows: Sequence[Sequence[int]]) -> Any:
        states.append(bench.health.ready()[0])
        return by_words(rows) if len(states) == 2 else away(rows)

    bench.classifier.scripts = [watching]
    flow = bench.flow()
    bench.health.set("guard", ok=True, detail="answers")
    await flow.judge(bench.batch(flow, "fine"))
    assert states == [True, False]
    assert bench.health.ready()[0] is True


async def test_the_audit_event_counts_the_attempts(bench: Bench) -> None:
    """Who waited for the guard can be told afterwards."""
    from pipeline import codec

    bench.classifier.scripts = [away, away, by_words]
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine"))
    (record,) = bench.publisher.to(TOPICS.audit)
    assert codec.decode_audit(record.value or b"", bench.schemas).attempt == 3


async def test_only_what_got_no_answer_is_asked_again(bench: Bench) -> None:
    """A message that was scored is published at once and not scored twice."""
    bench.classifier.scripts = [away, by_words]
    bench.max_rows = 2
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", "fine", "unsafe"))
    assert [len(rows) for rows in bench.classifier.calls] == [2, 1, 2]
    ids = sorted(v.verdict_id for v in bench.verdicts())
    assert ids == ["prompts:0:0", "prompts:0:1", "prompts:0:2"]
    assert bench.commits.acknowledged == [0, 1, 2]


async def test_kids_are_answered_while_others_wait(bench: Bench) -> None:
    """After its five seconds kids get an unscanned block; demo gets its score later."""
    progress: list[list[str]] = []

    def three_seconds(rows: Sequence[Sequence[int]]) -> SluiceError:
        progress.append([v.tenant for v in bench.verdicts()])
        assert bench.commits.acknowledged == []  # demo's message lies ahead of the others
        return away_for(bench, 3.0)(rows)  # type: ignore[no-any-return]

    bench.classifier.scripts = [three_seconds] * 4 + [by_words]
    flow = bench.flow()
    batch = [
        bench.inbound(flow, 0, json_value("fine", tenant="demo")),
        bench.inbound(flow, 1, json_value("fine", tenant="kids")),
        bench.inbound(flow, 2, json_value("unsafe", tenant="demo")),
    ]
    await flow.judge(batch)
    assert progress == [[], [], ["kids"], ["kids"]]
    kids, first, second = bench.verdicts()
    assert (kids.status, kids.action, dict(kids.scores)) == (Status.UNSCANNED, Action.BLOCK, {})
    assert (first.status, first.action) == (Status.SCORED, Action.ALLOW)
    assert (second.status, second.action) == (Status.SCORED, Action.BLOCK)
    assert bench.commits.acknowledged == [0, 1, 2]


async def test_a_batch_of_degrading_messages_ends_though_the_guard_stays_away(
    bench: Bench,
) -> None:
    """Nobody waits for ever who asked not to."""
    bench.classifier.scripts = [away_for(bench, 6.0)]
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", "unsafe", tenant="kids"))
    assert {v.status for v in bench.verdicts()} == {Status.UNSCANNED}
    assert len(bench.publisher.to(TOPICS.audit)) == 2
    assert bench.commits.acknowledged == [0, 1]


async def test_a_message_within_its_patience_is_not_degraded(bench: Bench) -> None:
    """An outage shorter than degrade_after_s costs no verdict its score."""
    bench.classifier.scripts = [away_for(bench, 4.9), by_words]
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", tenant="kids"))
    assert [v.status for v in bench.verdicts()] == [Status.SCORED]


async def test_what_the_guard_refuses_for_good_is_buried(bench: Bench) -> None:
    """One dead letter with the guard's reason; its neighbours have verdicts."""
    bench.classifier.scripts = [refuse_poison]
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", "poison", "unsafe"))
    (letter,) = bench.publisher.to(TOPICS.dead_letters)
    assert dict(letter.headers)["dlq_reason"] == b"guard-refused"
    assert [v.action for v in bench.verdicts()] == [Action.ALLOW, Action.BLOCK]
    assert bench.commits.acknowledged == [0, 1, 2]


async def test_too_many_dead_letters_stop_the_worker_before_any_is_published(
    bench: Bench,
) -> None:
    """Past the bound the batch raises with nothing published and nothing acknowledged."""
    bench.bound = Bound(window=10, count=3, ratio=0.5)
    flow = bench.flow()
    batch = [bench.inbound(flow, n, b"{") for n in range(3)]
    batch.append(bench.inbound(flow, 3, json_value()))
    with pytest.raises(DeadLetterLimit):
        await flow.judge(batch)
    assert bench.publisher.records == []
    assert bench.commits.acknowledged == []
    assert len(flow.ledger) == 4


async def test_a_guard_that_refuses_everything_stops_the_worker(bench: Bench) -> None:
    """Refused messages count once, as dead: one at a time they still pass the bound."""
    bench.bound = Bound(window=20, count=5, ratio=0.5)
    bench.classifier.scripts = [refuse_poison]
    flow = bench.flow()
    for offset in range(4):
        await flow.judge([bench.inbound(flow, offset, json_value("poison"))])
    fifth = bench.inbound(flow, 4, json_value("poison"))
    with pytest.raises(DeadLetterLimit, match="5 of the last 5"):
        await flow.judge([fifth])
    assert bench.commits.acknowledged == [0, 1, 2, 3]


async def test_a_few_refusals_among_good_messages_do_not_stop_it(bench: Bench) -> None:
    """Below the ratio the worker goes on."""
    bench.bound = Bound(window=20, count=5, ratio=0.5)
    bench.classifier.scripts = [refuse_poison]
    flow = bench.flow()
    for offset in range(40):
        text = "poison" if offset % 4 == 0 else "fine"
        await flow.judge([bench.inbound(flow, offset, json_value(text))])
    assert bench.commits.acknowledged == list(range(40))


def test_the_pause_between_attempts_grows_to_a_bound() -> None:
    """A long outage is asked about every two seconds."""
    pauses = [stream._pause_s(attempt) for attempt in (1, 2, 3, 100, 10**9)]
    assert pauses == [0.1, 0.2, 0.4, 2.0, 2.0]
