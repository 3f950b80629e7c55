"""Targets: what a person types on the command line is understood or refused in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from pipeline import dlq
from pipeline.errors import Misconfigured
from pipeline.ranges import MAX_MS, Edge, parse_bound, parse_range

from .draws import Draws
from .target import Target

NOW: Final = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_NOW_MS: Final = 1_795_435_200_000
_PARTS: Final = (
    "start", "end", "-", "+", "@", ":", ".", "T", "t", "Z", "z", " ", "ms", "s", "m", "h", "d",
    "2026-11-23", "2026-02-30", "9999-12-31", "0001-01-01", "12:00:00", "24:00:00", "23:59:60",
    "+02:00", "+23:59", "-23:59", "+24:00", "1795435200", "1795435200123", "999999999999999",
    "0.000000001", "1", "0", "9", "²", "٣", "\ud800", "\x00", "\n", "e5", "nan", "_",
)  # fmt: skip


def _typed(draws: Draws) -> str:
    """Pieces of the grammar in any order, or any text at all."""
    if draws.flag():
        return draws.rest().decode("utf-8", "surrogateescape")
    return "".join(draws.pick(_PARTS) for _ in range(draws.whole(0, 8)))


def bound(data: bytes) -> None:
    """One bound is an edge or a time within the years 1970 to 9999, whatever was typed."""
    draws = Draws(data)
    after_ms = draws.whole(0, MAX_MS) if draws.flag() else None
    found = parse_bound(_typed(draws), now=NOW, after_ms=after_ms)
    assert isinstance(found, Edge) or 0 <= found <= MAX_MS


def both(data: bytes) -> None:
    """A range holds something: it begins in the past, and before its end."""
    draws = Draws(data)
    start = None if draws.flag() else _piecewise(draws)
    end = None if draws.flag() else _piecewise(draws)
    found = parse_range(start, end, now=NOW)
    if isinstance(found.start, int):
        assert found.start <= _NOW_MS
        assert isinstance(found.end, Edge) or found.start < found.end


def _piecewise(draws: Draws) -> str:
    return "".join(draws.pick(_PARTS) for _ in range(draws.whole(0, 4)))


def position(data: bytes) -> None:
    """A position that is understood prints as what was typed, apart from leading zeros."""
    text = data.decode("utf-8", "surrogateescape")
    found = dlq.parse_position(text, "dead-letters")
    assert found.partition >= 0 <= found.offset
    assert dlq.parse_position(str(found), "dead-letters") == found


def _bound_seeds() -> list[bytes]:
    texts = (
        "start",
        "-1h30m",
        "2026-11-23T10:15:00.5+02:00",
        "1795435200123",
        "1.5d",
        "2026-11-23",
    )
    return [b"\x00\x01" + text.encode() for text in texts]


def _position_seeds() -> list[bytes]:
    return [b"dlq:0:1", b"moderation.prompts.v1:2:99", b"a:b:c", b"::", b"t:1:" + b"9" * 18]


TARGETS: Final = (
    Target(name="bound", entry=bound, allowed=(Misconfigured,), seeds=_bound_seeds, share=12),
    Target(name="range", entry=both, allowed=(Misconfigured,), seeds=_bound_seeds, share=10),
    Target(name="position", entry=position, allowed=(Misconfigured,), seeds=_position_seeds,
           share=8, max_bytes=64),
)  # fmt: skip
