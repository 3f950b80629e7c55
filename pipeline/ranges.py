"""Time ranges as `rpk topic consume --offset @t1:t2` takes them. Pure.

A bound is `start`, `end`, 13 digits (Unix milliseconds), 10 digits (Unix
seconds), a day (`2026-11-23`, UTC), RFC 3339 (`2026-11-23T10:15:00Z`), or a
duration: `-1h` is an hour ago; `1h30m` lies after the range's start, or after
now where the start is no time. See rpk's manual, "rpk topic consume".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from pipeline.errors import Misconfigured

MAX_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, past which no bound may lie."""

_UNITS_MS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
_PART: Final = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)"
_DURATION: Final = re.compile(rf"(-?)((?:{_PART})+)")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_LONGEST: Final = 64
_FORMS: Final = (
    "Use start, end, -1h, 2026-11-23, 2026-11-23T10:15:00Z, or Unix time in 10 or 13 digits"
)


class Edge(StrEnum):
    """The ends of what a partition holds now."""

    START = "start"
    END = "end"


Bound = Edge | int
"""An edge, or Unix time in milliseconds, 0..MAX_MS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Records from `start` on and before `end`, by Kafka's timestamps."""

    start: Bound = Edge.START
    end: Bound = Edge.END


def parse_range(start: str | None, end: str | None, *, now: datetime) -> Range:
    """The range between two bounds, each None for its edge.

    Raises Misconfigured naming the bound when it is none, or the two when
    they hold nothing: the start in the future, or not before the end.
    """
    first = Edge.START if start is None else parse_bound(start, now=now)
    after = first if isinstance(first, int) else None
    last = Edge.END if end is None else parse_bound(end, now=now, after_ms=after)
    if isinstance(first, int) and first > _ms(now):
        raise Misconfigured(
            f"the start {start!r} lies in the future", remedy="For the last hour, write -1h"
        )
    if isinstance(first, int) and isinstance(last, int) and first >= last:
        raise Misconfigured(
            f"the start {start!r} is not before the end {end!r}", remedy="Swap the two"
        )
    return Range(start=first, end=last)


def parse_bound(text: str, *, now: datetime, after_ms: int | None = None) -> Bound:
    """One bound; unsigned durations count from `after_ms`, if given, else from now.

    Raises Misconfigured when it has none of the forms or lies outside the
    years 1970 to 9999.
    """
    given = text.strip()
    if given in tuple(Edge):
        return Edge(given)
    found = _moment_ms(given, now, after_ms) if len(given) <= _LONGEST else None
    if found is None:
        raise Misconfigured(f"{_shown(text)} is not a time", remedy=_FORMS)
    if not 0 <= found <= MAX_MS:
        raise Misconfigured(
            f"{_shown(text)} lies outside the years 1970 to 9999", remedy="Correct the time"
        )
    return found


def _moment_ms(text: str, now: datetime, after_ms: int | None) -> int | None:
    """Milliseconds since the epoch, perhaps out of bounds; None for no form."""
    if re.fullmatch(r"[0-9]{13}", text):
        return int(text)
    if re.fullmatch(r"[0-9]{10}", text):
        return int(text) * 1000
    if duration := _DURATION.fullmatch(text):
        length_ms = _length_ms(duration[2])
        if duration[1]:
            return _ms(now) - length_ms
        return (_ms(now) if after_ms is None else after_ms) + length_ms
    return _calendar_ms(text)


def _length_ms(parts: str) -> int:
    return round(sum(float(count) * _UNITS_MS[unit] for count, unit in re.findall(_PART, parts)))


def _calendar_ms(text: str) -> int | None:
    """A day or an RFC 3339 time; None for neither, and for the 30th of February."""
    if _DAY.fullmatch(text):
        text += "T00:00:00Z"
    if not (form := _RFC3339.fullmatch(text)):
        return None
    day, time, fraction, zone = form.groups()
    # fromisoformat takes at most six digits of a second.
    micros = (fraction or ".0")[:7]
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{micros:0<7}{zone.upper()}")
        return _ms(moment)
    except (ValueError, OverflowError):
        return None


def _ms(moment: datetime) -> int:
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return delta.days * 86_400_000 + delta.seconds * 1000 + delta.microseconds // 1000


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}..."
