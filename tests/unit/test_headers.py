"""Specification of Kafka headers: events, trace, and a dead letter's provenance."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import headers
from pipeline.events import DeadLetter, Position

from . import strategies

AT = datetime(2025, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
original_headers = st.lists(
    st.tuples(strategies.names.filter(lambda n: not n.lower().startswith("dlq_")), st.binary())
).map(tuple)
letters = st.builds(
    DeadLetter,
    position=st.builds(
        Position, topic=strategies.names, partition=strategies.counts, offset=st.integers(0, 2**63)
    ),
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=original_headers,
    reason=strategies.texts,
    detail=strategies.texts,
    failed_at=strategies.moments,
    attempts=st.integers(0, 999_999_998),
    kafka_timestamp_ms=st.none() | st.integers(0, 2**62),
)


@given(letters)
def test_a_dead_letter_survives_its_headers(letter: DeadLetter) -> None:
    """What is read back from the dead-letter topic is what was buried."""
    stamped = headers.provenance(letter)
    assert headers.dead_letter(key=letter.key, value=letter.value, headers=stamped) == letter


@given(letters)
def test_burying_again_replaces_the_provenance(letter: DeadLetter) -> None:
    """A message that dies twice carries one provenance, and its own headers untouched."""
    once = headers.provenance(letter)
    second = DeadLetter(
        position=letter.position, key=None, value=None, headers=once, reason="r", detail="d",
        failed_at=AT, attempts=headers.attempts(once) + 1,
    )  # fmt: skip
    twice = headers.provenance(second)
    assert headers.without_provenance(twice) == letter.headers
    names = [name for name, _ in twice if name.startswith("dlq_")]
    assert len(names) == len(set(names))
    assert headers.attempts(twice) == letter.attempts + 1


def test_a_publisher_cannot_forge_where_a_dead_letter_came_from() -> None:
    """Headers that look like provenance, in any case, are dropped before ours are added."""
    forged = (("DLQ_Original_Topic", b"elsewhere"), ("dlq_original_offset", b"1"))
    letter = DeadLetter(
        position=Position(topic="prompts", partition=0, offset=9), key=None, value=None,
        headers=forged, reason="r", detail="d", failed_at=AT,
    )  # fmt: skip
    read = headers.dead_letter(key=None, value=None, headers=headers.provenance(letter))
    assert read.position == letter.position


@pytest.mark.parametrize("junk", [b"", b"-1", b"1e3", "٣".encode(), b"\xff", b"9" * 50, b" 1"])
def test_junk_attempts_count_as_none(junk: bytes) -> None:
    """A header somebody else wrote cannot break the count."""
    assert headers.attempts([(headers.DLQ_ATTEMPTS, junk)]) == 0


@pytest.mark.parametrize(
    "incomplete",
    [
        (),
        (("dlq_original_topic", b"t"),),
        (("dlq_original_topic", b"t"), ("dlq_original_partition", b"x"),
         ("dlq_original_offset", b"1"), ("dlq_failed_at", b"2025-01-01T00:00:00+00:00")),
        (("dlq_original_topic", b"t"), ("dlq_original_partition", b"1"),
         ("dlq_original_offset", b"1"), ("dlq_failed_at", b"yesterday")),
    ],
)  # fmt: skip
def test_a_record_that_is_no_dead_letter_raises_value_error(
    incomplete: tuple[tuple[str, bytes], ...],
) -> None:
    """Somebody else's record in the topic is told apart."""
    with pytest.raises(ValueError):
        headers.dead_letter(key=None, value=None, headers=incomplete)


@pytest.mark.parametrize(
    "failed_at", [b"2025-01-01", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59"]
)
def test_a_time_of_failure_that_cannot_be_ordered_is_not_ours(failed_at: bytes) -> None:
    """One forged record without a zone, or beyond UTC's years, stopped `dlq ls` for all."""
    forged = (
        ("dlq_original_topic", b"t"), ("dlq_original_partition", b"1"),
        ("dlq_original_offset", b"1"), ("dlq_failed_at", failed_at),
    )  # fmt: skip
    with pytest.raises(ValueError, match="time of failure"):
        headers.dead_letter(key=None, value=None, headers=forged)


def test_header_names_are_matched_without_case_and_the_first_counts() -> None:
    """HTTP gateways change the case of names."""
    given_headers = [("Content-Type", b"a"), ("content-type", b"b")]
    assert headers.first(given_headers, "content-type") == "a"
    assert headers.first(given_headers, "absent") is None


def test_a_null_or_undecodable_header_is_no_error() -> None:
    """Kafka allows a header without a value, and any bytes in one."""
    assert headers.first([("a", None)], "a") == ""  # type: ignore[list-item]
    assert headers.first([("a", b"\xff")], "a") == "\ufffd"


def test_only_trace_context_travels_on() -> None:
    """Other headers of the input, which may be personal, stay behind."""
    taken = (("traceparent", b"t"), ("cookie", b"secret"), ("tracestate", b"s"))
    assert headers.trace_of(taken) == (("traceparent", b"t"), ("tracestate", b"s"))


def test_trace_context_is_bounded() -> None:
    """Outcomes carry it: a large one, or many, would make them too large to publish."""
    fits = (("tracestate", b"s" * 1024), ("traceparent", b"00-" + b"1" * 52))
    assert headers.trace_of(fits) == fits
    assert headers.trace_of((("tracestate", b"s" * 1025), fits[1])) == fits[1:]
    assert headers.trace_of((("traceparent", b"t" * 9_000_000),)) == ()
    assert headers.trace_of([("tracestate", b"%d" % n) for n in range(9)]) == (
        ("tracestate", b"0"),
    )


def test_an_event_carries_cloudevents_headers() -> None:
    """All required attributes of the binary mode, then the trace."""
    stamped = headers.event(id="i", type="t", source="s", time=AT, trace=(("traceparent", b"p"),))
    assert dict(stamped) == {
        "ce_id": b"i", "ce_type": b"t", "ce_source": b"s", "ce_specversion": b"1.0",
        "ce_time": AT.isoformat().encode(), "content-type": b"avro/binary", "traceparent": b"p",
    }  # fmt: skip
