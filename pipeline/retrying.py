"""Try until it is done, waiting longer each time; what succeeds at once pays nothing for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina

from pipeline.errors import Retryable

_Result = TypeVar("_Result")


async def until_done(attempt: Callable[[], Awaitable[_Result]], *, wait_max_s: float) -> _Result:
    """The result of the first attempt that raises no Retryable; any other error is raised.

    The retry context is made only once something has failed: it is some seventy objects
    in a reference cycle, and one for each batch kept the garbage collector busy.
    """
    failed: Retryable | None
    try:
        return await attempt()
    except Retryable as error:
        failed = error
    async for again in stamina.retry_context(
        on=Retryable, attempts=None, timeout=None, wait_max=wait_max_s
    ):
        with again:
            if failed is not None:  # the attempt above is the first of those that it counts
                first, failed = failed, None
                raise first
            return await attempt()
    raise AssertionError("a retry without an end has ended")
