"""An answer reaches the message at its source position, and no other."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.answers import Answers, Wait
from pipeline.errors import Misconfigured
from pipeline.events import Position
from tests.support.golden_records import VERDICT


def at(offset: int) -> Position:
    """A position on one partition."""
    return Position(topic="t", partition=0, offset=offset)


def deliver(answers: Answers, offset: int, message_id: str = "m") -> None:
    """Hand over a verdict of the input at `offset`."""
    verdict = replace(VERDICT, message_id=message_id, source=at(offset))
    answers.deliver(at(offset), message_id, verdict)


def answered_offset(wait: Wait) -> int | None:
    """The input offset of the answer a wait got; None while it waits."""
    if not wait.answer.done():
        return None
    return wait.answer.result().source.offset  # type: ignore[union-attr]


@given(st.data())
def test_position_decides_in_every_order(data: st.DataObject) -> None:
    """Placed and answered in any order, under equal ids, each gets its own answer."""

    async def scenario() -> None:
        answers = Answers()
        waits = [answers.open("same") for _ in range(4)]
        steps = [("place", n) for n in range(4)] + [("deliver", n) for n in range(4)]
        steps += [("deliver", 99), ("deliver", 2)]
        for step, offset in data.draw(st.permutations(steps)):
            if step == "place":
                answers.place(waits[offset], at(offset))
            else:
                deliver(answers, offset, "same")
        assert [answered_offset(wait) for wait in waits] == [0, 1, 2, 3]
        for wait in waits:
            answers.close(wait)
        assert not answers.waiting

    asyncio.run(scenario())


async def test_answers_of_others_are_not_kept() -> None:
    """Another id's answer that came before the position was known is dropped."""
    answers = Answers()
    wait = answers.open("mine")
    deliver(answers, 1, "other")
    assert wait.early == {}
    answers.close(wait)


async def test_a_wait_that_was_given_up_is_forgotten() -> None:
    """After a timeout nothing is left behind, and a late answer harms nobody."""
    answers = Answers()
    wait = answers.open("m")
    answers.place(wait, at(1))
    answers.close(wait)
    deliver(answers, 1)
    assert not answers.waiting
    assert wait.answer.cancelled()


async def test_a_failure_reaches_every_wait() -> None:
    """Those that wait now, placed or not, and those that would begin to."""
    answers = Answers()
    placed, unplaced = answers.open("a"), answers.open("b")
    answers.place(placed, at(1))
    answers.fail(Misconfigured("gone", remedy=""))
    for wait in (placed, unplaced):
        with pytest.raises(Misconfigured, match="gone"):
            await wait.answer
    with pytest.raises(Misconfigured, match="gone"):
        answers.open("c")
