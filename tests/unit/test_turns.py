"""Specification of turns: small work first, nobody for ever, none lost."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.turns import OLDEST_EVERY, Turns


async def queue(turns: Turns, sizes: list[int]) -> tuple[list[int], list[asyncio.Task[None]]]:
    """Work of these sizes, waiting in this order; the list fills with sizes as they get a turn."""
    done: list[int] = []

    async def work(size: int) -> None:
        async with turns.turn(size):
            done.append(size)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(size)) for size in sizes]
    await asyncio.sleep(0)
    return done, tasks


async def test_no_more_than_so_many_have_a_turn_at_once() -> None:
    """The bound holds while turns are handed on."""
    turns, inside, most = Turns(2), 0, 0

    async def work(size: int) -> None:
        nonlocal inside, most
        async with turns.turn(size):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work(n % 3) for n in range(20)))
    assert (most, inside) == (2, 0)


async def test_the_smallest_work_that_waits_has_the_next_turn() -> None:
    """A short text's one call passes a long text's many."""
    turns = Turns(1)
    async with turns.turn(1):
        done, tasks = await queue(turns, [40, 40, 1])
    await asyncio.gather(*tasks)
    assert done == [1, 40, 40]


async def test_large_work_is_not_kept_waiting_for_ever() -> None:
    """However much small work comes, every so many turns go to who has waited longest."""
    turns = Turns(1)
    async with turns.turn(1):
        done, tasks = await queue(turns, [99, *[1] * 20])
    await asyncio.gather(*tasks)
    assert done.index(99) == OLDEST_EVERY - 1


@pytest.mark.parametrize("after_the_turn_came", [False, True])
async def test_a_turn_of_who_was_cancelled_goes_to_the_next(after_the_turn_came: bool) -> None:
    """Before its turn came, and between its coming and being taken."""
    turns = Turns(1)
    giver = turns.turn(1)
    await giver.__aenter__()
    done, tasks = await queue(turns, [1, 2])
    if not after_the_turn_came:
        tasks[0].cancel()
    await giver.__aexit__(None, None, None)
    tasks[0].cancel()
    await asyncio.wait_for(tasks[1], 1)
    assert done == [2]
    async with asyncio.timeout(1), turns.turn(1):
        pass
