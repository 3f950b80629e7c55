"""Specification of the flow's rim: taking Faust events, drain, and crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pipeline.dead_letters import Bound
from pipeline.errors import DeadLetterLimit, Misconfigured
from pipeline.events import Kind
from pipeline.ports import Inference
from pipeline.stream import Flow

from .fakes import TOPICS, WORD_IDS, Bench, ScriptedClassifier, json_value


@asynccontextmanager
async def running(flow: Flow) -> AsyncIterator[Flow]:
    """The flow's conveyor runs for the length of a block."""
    task = asyncio.create_task(flow.conveyor.run())
    try:
        yield flow
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class Stuck(ScriptedClassifier):
    """A guard that never answers and never fails."""

    async def infer(self, *_: object, **__: object) -> Inference:
        """Wait for ever."""
        self.calls.append([])
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


async def test_events_become_acknowledged_outcomes(bench: Bench) -> None:
    """Thirty events through a buffer of four: thirty verdicts, acknowledged in order."""
    async with running(bench.flow()) as flow:
        for offset in range(30):
            fetched = bench.fetched(json_value(message_id=f"m-{offset}"), first=offset)
            await flow.take(Kind.PROMPT, fetched, current=1)
        await until(lambda: len(bench.commits.acknowledged) == 30)
    assert bench.commits.acknowledged == list(range(30))
    assert sorted(v.source.offset for v in bench.verdicts()) == list(range(30))
    assert bench.crashes == []


async def test_one_fetch_becomes_many_batches(bench: Bench) -> None:
    """Thirty records at once pass the same small buffer, each with its own verdict."""
    values = [json_value(message_id=f"m-{offset}") for offset in range(30)]
    async with running(bench.flow()) as flow:
        await flow.take(Kind.PROMPT, bench.fetched(*values, first=7), current=1)
        await until(lambda: len(bench.commits.acknowledged) == 30)
    assert bench.commits.acknowledged == list(range(7, 37))
    assert sorted(v.source.offset for v in bench.verdicts()) == list(range(7, 37))


async def test_a_drain_lets_go_of_the_part_of_a_fetch_that_waits_at_the_door(bench: Bench) -> None:
    """Each record that is not settled is let go once, in the buffer or outside."""
    bench.classifier = stuck = Stuck()
    async with running(bench.flow()) as flow:
        fetched = bench.fetched(*[json_value()] * 40)
        taking = asyncio.create_task(flow.take(Kind.PROMPT, fetched, current=1))
        await until(lambda: bool(stuck.calls))
        await flow.drain()
        await taking
    assert sorted(bench.commits.forgotten) == list(range(40))
    assert bench.commits.acknowledged == []
    assert len(flow.ledger) == 0


async def test_an_event_without_headers_or_timestamp_is_taken(bench: Bench) -> None:
    """Old publishers send neither; here the value is no frame and is buried."""
    fetched = bench.fetched(b"junk", headers=None)
    fetched.records[0].timestamp = None
    async with running(bench.flow()) as flow:
        await flow.take(Kind.PROMPT, fetched, current=1)
        await until(lambda: bench.commits.acknowledged == [0])
    (letter,) = bench.publisher.to(TOPICS.dead_letters)
    assert dict(letter.headers)["dlq_original_timestamp_ms"] == b""


async def test_the_kafka_timestamp_travels_with_a_dead_letter(bench: Bench) -> None:
    """Milliseconds, as Kafka had them."""
    async with running(bench.flow()) as flow:
        await flow.take(Kind.PROMPT, bench.fetched(None), current=1)
        await until(lambda: bench.commits.acknowledged == [0])
    (letter,) = bench.publisher.to(TOPICS.dead_letters)
    assert dict(letter.headers)["dlq_original_timestamp_ms"] == b"1748779200000"


async def test_an_event_of_an_earlier_assignment_is_let_go(bench: Bench) -> None:
    """What was fetched before a rebalance is not judged here, and no rebalance waits for it."""
    flow = bench.flow()
    fetched = bench.fetched(json_value(), generation=1)
    await flow.take(Kind.PROMPT, fetched, current=2)
    assert not fetched.tracked
    assert len(flow.ledger) == 0


async def test_while_draining_events_are_let_go_and_after_resume_taken(bench: Bench) -> None:
    """Nothing enters during a rebalance; afterwards everything does."""
    async with running(bench.flow()) as flow:
        await flow.drain()
        fetched = bench.fetched(json_value())
        await flow.take(Kind.PROMPT, fetched, current=1)
        assert not fetched.tracked
        flow.resume()
        await flow.take(Kind.PROMPT, fetched, current=1)
        assert fetched.tracked
        await until(lambda: bench.commits.acknowledged == [0])


async def test_taking_never_raises_into_the_agent(bench: Bench) -> None:
    """An offset that goes back crashes the worker instead of ending the agent."""
    flow = bench.flow()
    await flow.take(Kind.PROMPT, bench.fetched(json_value(), first=5), current=1)
    await flow.take(Kind.PROMPT, bench.fetched(json_value(), first=5), current=1)
    assert [type(error) for error in bench.crashes] == [ValueError]


async def test_drain_gives_back_what_is_not_settled(bench: Bench) -> None:
    """At the deadline every open message is let go and none is acknowledged."""
    bench.classifier = stuck = Stuck()
    async with running(bench.flow()) as flow:
        for offset in range(6):
            await flow.take(Kind.PROMPT, bench.fetched(json_value(), first=offset), current=1)
        await until(lambda: bool(stuck.calls))
        async with asyncio.timeout(5):
            await flow.drain()
    assert bench.commits.acknowledged == []
    assert set(bench.commits.forgotten) == set(range(6))
    assert len(flow.ledger) == 0
    assert bench.publisher.records == []
    assert bench.crashes == []


async def test_drain_gives_back_what_waits_behind_an_open_message(bench: Bench) -> None:
    """A published outcome whose offset could not be acknowledged yet is delivered again."""
    bench.batch_messages = 1

    class StuckOnPoison(ScriptedClassifier):
        async def infer(self, guard: str, rows: Any, *, length: int, pad_id: int) -> Inference:
            if any(WORD_IDS["poison"] in row for row in rows):
                await asyncio.get_running_loop().create_future()
            return await ScriptedClassifier().infer(guard, rows, length=length, pad_id=pad_id)

    bench.classifier = StuckOnPoison()
    async with running(bench.flow()) as flow:
        for offset, text in enumerate(("poison", "fine")):
            await flow.take(Kind.PROMPT, bench.fetched(json_value(text), first=offset), current=1)
        await until(lambda: len(bench.verdicts()) == 1)
        await flow.drain()
    assert bench.commits.acknowledged == []
    assert set(bench.commits.forgotten) == {0, 1}
    assert len(flow.ledger) == 0


async def test_drain_lets_a_batch_that_is_nearly_done_end(bench: Bench) -> None:
    """What finishes within the deadline is published and acknowledged, not given back."""
    classifier = bench.classifier
    gate = asyncio.Event()

    class Slow(ScriptedClassifier):
        async def infer(self, *args: object, **given: object) -> Inference:
            self.calls.append([])
            await gate.wait()
            return await classifier.infer(*args, **given)  # type: ignore[arg-type]

    bench.classifier = slow = Slow()
    async with running(bench.flow()) as flow:
        await flow.take(Kind.PROMPT, bench.fetched(json_value()), current=1)
        await until(lambda: bool(slow.calls))
        draining = asyncio.create_task(flow.drain())
        await asyncio.sleep(0)
        gate.set()
        await draining
    assert bench.commits.acknowledged == [0]
    assert bench.commits.forgotten == []


async def test_the_dead_letter_limit_crashes_without_settling(bench: Bench) -> None:
    """The worker stops; every message is still open and Kafka delivers it again."""
    bench.bound = Bound(window=10, count=2, ratio=0.5)
    bench.batch_messages = 4
    flow = bench.flow()
    for offset in range(4):
        await flow.take(Kind.PROMPT, bench.fetched(b"{", first=offset), current=1)
    async with running(flow):
        await until(lambda: bool(bench.crashes))
    assert [type(error) for error in bench.crashes] == [DeadLetterLimit]
    assert bench.commits.acknowledged == []
    assert bench.publisher.records == []
    assert len(flow.ledger) == 4


async def test_a_publisher_that_is_misconfigured_crashes_without_settling(bench: Bench) -> None:
    """What can never be published must not be committed."""
    bench.publisher.failures = [Misconfigured("not authorised", remedy="Grant it")] * 9
    async with running(bench.flow()) as flow:
        await flow.take(Kind.PROMPT, bench.fetched(json_value()), current=1)
        await until(lambda: bool(bench.crashes))
    assert isinstance(bench.crashes[0], Misconfigured)
    assert bench.commits.acknowledged == []
