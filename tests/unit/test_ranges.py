"""Time ranges: every form rpk takes, and an error in words for everything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Misconfigured
from pipeline.ranges import MAX_MS, Edge, Range, parse_bound, parse_range

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW_MS = 1_795_435_200_000
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start", Edge.START),
        ("end", Edge.END),
        (" end ", Edge.END),
        ("1795435200123", NOW_MS + 123),
        ("1795435200", NOW_MS),
        ("2026-11-23", NOW_MS - 12 * HOUR_MS),
        ("2026-11-23T12:00:00Z", NOW_MS),
        ("2026-11-23T12:00:00.5Z", NOW_MS + 500),
        ("2026-11-23T12:00:00.123456789Z", NOW_MS + 123),
        ("2026-11-23T14:00:00+02:00", NOW_MS),
        ("-1h", NOW_MS - HOUR_MS),
        ("-1h30m", NOW_MS - HOUR_MS * 3 // 2),
        ("-1.5h", NOW_MS - HOUR_MS * 3 // 2),
        ("-7d", NOW_MS - 7 * 24 * HOUR_MS),
        ("-250ms", NOW_MS - 250),
        ("1h30m", NOW_MS + HOUR_MS * 3 // 2),
    ],
)
def test_each_form_means_what_rpk_says(text: str, expected: Edge | int) -> None:
    """Edges, Unix time, days, RFC 3339 and durations."""
    assert parse_bound(text, now=NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "h", "1", "-1", "12:00", "2026-02-30", "2026-11-23T12:00:00", "yesterday",
        "-1w", "1h 30m", "٣h", "1795435200١", "2026-11-23T12:00:60Z", "--1h", "start end",
        "9" * 5000, "1h" * 5000,
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    """The error quotes the bound, cut when long, and says what to write."""
    with pytest.raises(Misconfigured, match="is not a time") as caught:
        parse_bound(text, now=NOW)
    assert "-1h" in caught.value.remedy
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["-999999d", "999999999999999d", "9999999999999h"])
def test_a_time_no_record_can_have_is_refused(text: str) -> None:
    """Before 1970 and after 9999 there is nothing to ask for."""
    with pytest.raises(Misconfigured, match="outside the years"):
        parse_bound(text, now=NOW)


def test_an_unsigned_end_counts_from_the_start() -> None:
    """`--from 2026-11-23 --to 1h` is the first hour of that day."""
    midnight = NOW_MS - 12 * HOUR_MS
    expected = Range(start=midnight, end=midnight + HOUR_MS)
    assert parse_range("2026-11-23", "1h", now=NOW) == expected


def test_bounds_left_out_are_the_edges() -> None:
    """Without bounds it is everything there is now."""
    assert parse_range(None, None, now=NOW) == Range(start=Edge.START, end=Edge.END)


def test_a_start_in_the_future_suggests_the_past() -> None:
    """`--from 1h` was meant as `-1h`."""
    with pytest.raises(Misconfigured, match=r"lies in the future.*write -1h"):
        parse_range("1h", None, now=NOW)


def test_a_range_that_holds_nothing_is_refused() -> None:
    """The start must come before the end."""
    with pytest.raises(Misconfigured, match="is not before the end"):
        parse_range("-1h", "-2h", now=NOW)


@given(st.text() | st.from_regex(r"-?([0-9]{1,20}(\.[0-9]*)?(ms|[smhdw]))*[TZ:0-9-]*"))
def test_no_text_makes_it_crash(text: str) -> None:
    """Whatever is typed gives a bound within limits, or Misconfigured."""
    try:
        found = parse_bound(text, now=NOW)
    except Misconfigured:
        return
    assert found in tuple(Edge) or (isinstance(found, int) and 0 <= found <= MAX_MS)


@given(st.integers(0, MAX_MS // 1000))
def test_rfc_3339_is_exact(unix_s: int) -> None:
    """Formatted and parsed, a second is the same second."""
    text = datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
    assert parse_bound(text, now=NOW) == unix_s * 1000


@given(st.integers(0, 48), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    """`-XhYmZs` lies that long before now."""
    length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    expected = NOW_MS - round(length.total_seconds() * 1000)
    assert parse_bound(f"-{hours}h{minutes}m{seconds}s", now=NOW) == expected
