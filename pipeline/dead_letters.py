"""Bounds on dead letters: how many before the worker stops, and how large one may be.

A bad deploy of a publisher, or a lost schema, makes every message
undecodable. Past the bound the worker stops with nothing acknowledged, so
that the messages wait in their topic for a person. Pure.

A publisher's compression lets a broker take a value that is larger than what
may be published again: its dead letter says so, in place of the value.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass

from msgspec.structs import replace

from pipeline.errors import DeadLetterLimit
from pipeline.events import DeadLetter


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """When to stop: too many dead letters among the last `window` messages.

    Too many is at least `count` of them and more than `ratio` (0..1) of the
    window; a ratio of 1 never stops.
    """

    window: int
    count: int
    ratio: float


class Budget:
    """Counts messages against a bound."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._recent: deque[bool] = deque(maxlen=bound.window)
        self._dead = 0

    def spend(self, *, good: int, dead: int) -> None:
        """Count messages; raises DeadLetterLimit when the bound is passed."""
        for is_dead in (*[False] * good, *[True] * dead):
            if len(self._recent) == self._recent.maxlen and self._recent[0]:
                self._dead -= 1
            self._recent.append(is_dead)
            self._dead += is_dead
        if dead:
            self._check()

    def revise(self, *, dead: int) -> None:
        """Messages counted as good turned out dead; raises as `spend` does."""
        if not dead:
            return
        alive = [index for index, is_dead in enumerate(self._recent) if not is_dead]
        latest = alive[-dead:]
        for index in latest:
            self._recent[index] = True
        self._dead += len(latest)
        self._check()

    def _check(self) -> None:
        require_below(self._bound, dead=self._dead, of=len(self._recent), when="last")


def require_below(bound: Bound, *, dead: int, of: int, when: str) -> None:
    """Raise DeadLetterLimit when `dead` of `of` messages pass the bound."""
    if dead >= bound.count and dead > bound.ratio * of:
        raise DeadLetterLimit(
            f"{dead:,} of the {when} {of:,} messages cannot be judged",
            remedy="See `sluice dlq ls` for why. Repair the publisher, or set"
            " limits.dead_letter_ratio = 1 to let them pass, then start the worker again",
        )


def fitting(letter: DeadLetter, room_bytes: int) -> DeadLetter:
    """The letter within `room_bytes` of key, value and headers, each left out where it must be.

    The value goes first and leaves its size and hash; what it was lies at its position for
    as long as its topic keeps it.
    """
    value, key = letter.value or b"", letter.key or b""
    headers_bytes = sum(len(name) + len(content or b"") for name, content in letter.headers)
    if len(key) + len(value) + headers_bytes <= room_bytes:
        return letter
    small = replace(
        letter,
        value=None,
        left_out_bytes=len(value),
        left_out_sha256=hashlib.sha256(value).hexdigest(),
    )
    if len(key) + headers_bytes <= room_bytes:
        return small
    return replace(small, key=None, headers=())
