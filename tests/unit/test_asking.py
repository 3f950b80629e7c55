"""Specification of a guard's queue: calls of whoever waits, and nobody waits for another's rows."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from pipeline.asking import Answer, CallLimits, GuardQueue
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.events import Coverage
from pipeline.ports import Inference
from pipeline.scoring import Guard
from pipeline.windows import Windowed

from .fakes import WORD_IDS, FakeClock, by_words


@dataclass(slots=True)
class Gated:
    """A classifier whose calls end when the gate opens; it notes what each holds."""

    calls: list[list[tuple[int, ...]]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    elapsed_s: float = 0.01
    at_once: int = 0
    most_at_once: int = 0

    async def infer(
        self, guard: str, rows: Sequence[Sequence[int]], *, length: int, pad_id: int
    ) -> Inference:
        """Logits by the rows' words."""
        self.calls.append([tuple(row) for row in rows])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        if self.error:
            raise self.error
        return Inference(logits=by_words(rows), version="7", elapsed_s=self.elapsed_s)


def text(*windows: Sequence[int]) -> Windowed:
    """A text of these windows."""
    return Windowed(
        windows=tuple(tuple(window) for window in windows),
        coverage=Coverage(scanned_tokens=1, total_tokens=1),
    )


def queue(
    guard: Guard, classifier: Gated, *, rows: int = 4, in_flight: int = 1
) -> tuple[GuardQueue, dict[str, str]]:
    """A queue before this classifier, and the versions it notes."""
    versions: dict[str, str] = {}
    limits = CallLimits(max_rows=rows, max_tokens=1000, max_windows=8, in_flight=in_flight)
    return GuardQueue(guard.card, classifier, limits, FakeClock(), versions), versions


def growing(guard: Guard) -> tuple[GuardQueue, Gated, list[int]]:
    """A queue whose calls hold one to four full windows, what answers it, and such a window."""
    classifier = Gated()
    classifier.gate.set()
    longest = guard.card.buckets[-1]
    limits = CallLimits(
        max_rows=4, max_tokens=longest, quick_max_tokens=4 * longest, max_windows=99, in_flight=1
    )
    asked = GuardQueue(guard.card, classifier, limits, FakeClock(), {})
    return asked, classifier, [WORD_IDS["fine"]] * longest


async def turns(count: int = 5) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


A, B, C, D = ([WORD_IDS["fine"]] * length for length in (3, 4, 5, 6))


async def test_what_gathers_while_a_call_is_under_way_shares_the_next(guard: Guard) -> None:
    """Three askers, two calls: the first left at once, the others' windows together."""
    classifier = Gated()
    asked, versions = queue(guard, classifier)
    tasks = [asyncio.create_task(asked.ask([text(each)])) for each in (A, B, C)]
    await turns()
    assert classifier.calls == [[tuple(A)]]
    classifier.gate.set()
    answers = await asyncio.gather(*tasks)
    assert classifier.calls[1:] == [[tuple(B), tuple(C)]]
    assert [set(each) for each in answers] == [{(0, 0)}] * 3
    assert versions == {guard.card.name: "7"}


async def test_calls_grow_while_the_guard_answers_quickly_and_shrink_when_it_does_not(
    guard: Guard,
) -> None:
    """From one window of the longest bucket to as many as are allowed, and back."""
    asked, classifier, full = growing(guard)
    assert not asked.quick
    await asked.ask([text(*[full] * 11)])
    assert [len(call) for call in classifier.calls] == [1, 2, 4, 4]
    assert asked.quick
    classifier.calls.clear()
    classifier.elapsed_s = 1.0
    await asked.ask([text(*[full] * 8)])
    assert [len(call) for call in classifier.calls] == [4, 2, 1, 1]
    assert not asked.quick


async def test_calls_shrink_while_the_guard_does_not_answer_in_time(guard: Guard) -> None:
    """A guard that became slow would else be asked for ever for more than its deadline allows."""
    asked, classifier, full = growing(guard)
    await asked.ask([text(*[full] * 7)])
    classifier.calls.clear()
    classifier.error = DependencyUnavailable("no answer in 10 s", remedy="Wait")
    await asked.ask([text(*[full] * 8)])
    assert [len(call) for call in classifier.calls] == [4, 2, 1, 1]


async def test_no_more_calls_than_allowed_are_under_way(guard: Guard) -> None:
    """The bound holds across askers."""
    classifier = Gated()
    asked, _ = queue(guard, classifier, rows=1, in_flight=2)
    task = asyncio.gather(*(asked.ask([text(A, B)]) for _ in range(5)))
    await turns()
    classifier.gate.set()
    await task
    assert (len(classifier.calls), classifier.most_at_once) == (10, 2)


async def test_an_asker_that_gave_up_takes_its_windows_along(guard: Guard) -> None:
    """What it still waited for is not asked, what others wait for is."""
    classifier = Gated()
    asked, _ = queue(guard, classifier, rows=1)
    first, gone, other = (asyncio.create_task(asked.ask([text(each)])) for each in (A, B, C))
    await turns()
    gone.cancel()
    await turns()
    classifier.gate.set()
    await asyncio.gather(first, other)
    assert gone.cancelled()
    assert classifier.calls == [[tuple(A)], [tuple(C)]]


async def test_an_asker_that_gave_up_mid_call_leaves_its_neighbours_their_answers(
    guard: Guard,
) -> None:
    """A call under way is everybody's whose rows it holds."""
    classifier = Gated()
    asked, _ = queue(guard, classifier, in_flight=1)
    blocked = asyncio.create_task(asked.ask([text(A)]))
    await turns()
    gone, stays = (asyncio.create_task(asked.ask([text(each)])) for each in (B, C))
    await turns()
    classifier.gate.set()
    await blocked
    gone.cancel()
    (answer,) = (await stays).values()
    assert isinstance(answer, Answer)


async def test_an_error_that_is_nobodys_answer_reaches_whoever_asked(guard: Guard) -> None:
    """All in the call, and the queue goes on afterwards."""
    classifier = Gated(error=Misconfigured("no such guard", remedy="load it"))
    classifier.gate.set()
    asked, _ = queue(guard, classifier)
    with pytest.raises(Misconfigured):
        await asked.ask([text(A, B)])
    classifier.error = None
    assert await asked.ask([text(D)])


async def test_nothing_to_ask_is_answered_at_once(guard: Guard) -> None:
    """No text, or every window settled already."""
    classifier = Gated()
    asked, _ = queue(guard, classifier)
    assert await asked.ask([]) == {}
    assert await asked.ask([text(A)], without={(0, 0)}) == {}
    assert classifier.calls == []


async def test_who_was_answered_leaves_nothing_to_the_garbage_collector(guard: Guard) -> None:
    """Asker and windows hold each other only while they wait."""
    classifier = Gated()
    classifier.gate.set()
    asked, _ = queue(guard, classifier)
    await asked.ask([text(A)])
    await turns()
    gc.collect()
    for _ in range(20):
        await asked.ask([text(A, B)])
    await turns()
    assert gc.collect() == 0
