"""The closed loop's window: no more under way than there are slots."""

from __future__ import annotations

import asyncio

import pytest

from loadtest.closed import Window


async def test_a_full_window_waits_for_an_outcome() -> None:
    """The third message of two slots enters once one of them has ended."""
    window = Window("ab12", 2)
    await window.enter(0, timeout_s=60)
    await window.enter(1, timeout_s=60)
    third = asyncio.create_task(window.enter(2, timeout_s=60))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(third), 0.05)
    window.leave(0)
    await asyncio.wait_for(third, 5)


async def test_an_outcome_frees_its_slot_once() -> None:
    """A duplicate does not let one more in."""
    window = Window("ab12", 1)
    await window.enter(0, timeout_s=60)
    window.leave(0)
    window.leave(0)
    await window.enter(1, timeout_s=60)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(window.enter(2, timeout_s=60), 0.05)


async def test_a_lost_message_does_not_hold_its_slot_for_ever() -> None:
    """After the timeout the next one enters; the loss is counted elsewhere."""
    window = Window("ab12", 1)
    await window.enter(0, timeout_s=0.05)
    await asyncio.wait_for(window.enter(1, timeout_s=0.05), 5)
    await window.drained(0.05)
