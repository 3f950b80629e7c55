"""What is tried until it is done: how often, with which waits, and what it leaves behind."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import stamina

from pipeline.errors import Misconfigured, Retryable
from pipeline.health import Health
from pipeline.outputs import Outputs
from pipeline.ports import Outgoing
from pipeline.retrying import until_done


def failing(times: int) -> Callable[[], object]:
    """An attempt that fails so often, then says how often it was made."""
    made = 0

    async def attempt() -> int:
        nonlocal made
        made += 1
        if made <= times:
            raise Retryable("away", remedy="Wait")
        return made

    return attempt


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_the_first_attempt_that_succeeds_is_the_result(times: int) -> None:
    """Each attempt is made once."""
    with stamina.set_testing(True, attempts=50):
        assert await until_done(failing(times), wait_max_s=1.0) == times + 1


async def test_the_first_failure_counts_among_the_attempts() -> None:
    """Who bounds the attempts, as tests do, bounds all of them."""
    with stamina.set_testing(True, attempts=2), pytest.raises(Retryable):
        await until_done(failing(2), wait_max_s=1.0)


async def test_another_error_is_raised_at_once() -> None:
    """Only what may pass by itself is tried again."""

    async def attempt() -> None:
        raise Misconfigured("wrong", remedy="Correct it")

    with pytest.raises(Misconfigured):
        await until_done(attempt, wait_max_s=1.0)


async def test_a_batch_that_succeeds_leaves_nothing_to_the_garbage_collector() -> None:
    """Seventy objects in cycles for each batch were a pause of 100 ms every few seconds."""
    outputs, records = Outputs(Health({})), [Outgoing(topic="t", key=b"", value=b"", headers=())]

    async def publish() -> None:
        with outputs.watched(records):
            pass

    await until_done(publish, wait_max_s=1.0)
    gc.collect()
    for _ in range(20):
        await until_done(publish, wait_max_s=1.0)
    assert gc.collect() == 0
