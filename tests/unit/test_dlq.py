"""Dead letters as people meet them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import dlq, headers
from pipeline.errors import Misconfigured, Reason
from pipeline.events import DeadLetter, Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def position(offset: int, topic: str = "prompts") -> Position:
    """A position in partition 1."""
    return Position(topic=topic, partition=1, offset=offset)


def letter(offset: int = 7, **given: object) -> dlq.Found:
    """A dead letter of input `offset`, failed `offset` seconds after NOW."""
    fields: dict[str, object] = {
        "position": position(offset),
        "key": b"k",
        "value": b"{oops",
        "headers": (("content-type", b"application/json"),),
        "reason": "bad-json",
        "detail": "no JSON",
        "failed_at": NOW + timedelta(seconds=offset),
    }
    made = DeadLetter(**{**fields, **given})  # type: ignore[arg-type]
    found = dlq.found(
        position(offset + 100, "dead"),
        key=made.key,
        value=made.value,
        record_headers=headers.provenance(made),
    )
    assert found is not None
    return found


def sent_again(one: dlq.Found, offset: int) -> dlq.Found:
    """The dead letter that a retry of `one` ends as, at another input offset."""
    record = dlq.again(one.letter)
    return letter(offset, headers=record.headers, attempts=headers.attempts(record.headers) + 1)


def test_a_record_comes_back_as_the_letter_that_was_written() -> None:
    """What the worker wrote is what people see."""
    assert letter().letter.detail == "no JSON"
    assert letter().at == position(107, "dead")


def test_a_value_that_was_left_out_is_told_with_its_size() -> None:
    """People see how large it was, and that it is not here."""
    one = letter(value=None, left_out_bytes=9_000_000, left_out_sha256="ab" * 32)
    assert (one.size_bytes, one.letter.value) == (9_000_000, None)
    assert dlq.as_json(one)["left_out"]
    assert one.letter.left_out_sha256 == "ab" * 32


def test_a_foreign_record_is_no_dead_letter() -> None:
    """A record without our headers is passed over."""
    assert dlq.found(position(1), key=None, value=b"x", record_headers=()) is None


def test_every_reason_says_what_to_do() -> None:
    """No reason leaves a person without a remedy."""
    assert set(dlq.WHAT_TO_DO) == set(Reason)
    assert "newer" in dlq.what_to_do("of-next-year")


def test_a_position_may_be_the_input_s_or_the_letter_s() -> None:
    """Both positions that `dlq ls` shows find the letter."""
    for text in ("prompts:1:7", "dlq:1:107", "dead:1:107"):
        assert dlq.matches(letter(), dlq.parse_position(text, "dead"))
    assert not dlq.matches(letter(), dlq.parse_position("prompts:1:8", "dead"))


@pytest.mark.parametrize("text", ["", "prompts", "prompts:1", "prompts:1:x", ":1:2", "p:-1:2"])
def test_anything_else_is_refused_with_the_form_to_use(text: str) -> None:
    """A position that is none says how one looks."""
    with pytest.raises(Misconfigured, match="topic:partition:offset"):
        dlq.parse_position(text, "dead")


def test_a_retry_is_the_original_and_its_count_of_attempts() -> None:
    """Key, value and headers are untouched; the worker goes on counting."""
    record = dlq.again(letter(attempts=2).letter)
    assert (record.topic, record.key, record.value) == ("prompts", b"k", b"{oops")
    assert record.headers[0] == ("content-type", b"application/json")
    assert headers.attempts(record.headers) == 2
    assert headers.first(record.headers, headers.DLQ_REASON) is None


def test_a_message_that_failed_again_is_chosen_once() -> None:
    """Of a letter and what its retry became, only the later one is sent."""
    first = letter(7)
    second = sent_again(first, 20)
    third = sent_again(second, 30)
    other = letter(9)
    assert dlq.not_superseded([third, first, other, second]) == [other, third]
    assert third.letter.attempts == 3
    assert dlq.first_position(third.letter) == "prompts:1:7"


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_publisher_cannot_put_a_message_in_the_place_of_another(attempts: int) -> None:
    """Who names another's position, and counts attempts, stands for itself alone."""
    victim = letter(7, reason="unknown-tenant")
    named = (*victim.letter.headers, (headers.RETRY_OF, b"prompts:1:7"))
    forged = letter(20, headers=named, attempts=attempts, value=b"")
    other_headers = letter(21, headers=named[1:], attempts=attempts)
    assert dlq.not_superseded([victim, forged, other_headers]) == [victim, forged, other_headers]


def test_a_first_attempt_is_a_retry_of_nothing() -> None:
    """The header is Sluice's own only on a message that it has sent again."""
    forged = letter(20, headers=((headers.RETRY_OF, b"prompts:1:7"),))
    assert dlq.first_position(forged.letter) == "prompts:1:20"
    record = dlq.again(forged.letter)
    assert headers.first(record.headers, headers.RETRY_OF) == "prompts:1:20"


@pytest.mark.parametrize("name", [headers.RETRY_OF, "Sluice_Retry_Of"])
def test_a_forged_letter_is_superseded_by_its_own_retry(name: str) -> None:
    """Retries do not multiply a message that names a position where no letter lies."""
    for attempts in (1, 2):
        first = letter(20, headers=((name, b"prompts:1:7"),), attempts=attempts)
        second = sent_again(first, 30)
        assert dlq.not_superseded([first, second]) == [second]


def test_what_came_back_is_chosen_once_after_its_first_letter_is_gone() -> None:
    """Retention may have deleted the letter that the others are retries of."""
    second = sent_again(letter(7), 20)
    third = sent_again(second, 30)
    assert dlq.not_superseded([second, third]) == [third]


def test_a_list_keeps_sizes_and_not_bytes() -> None:
    """A long list does not hold every value."""
    one = letter().without_value()
    assert (one.letter.value, one.size_bytes) == (None, 5)


@given(st.binary(max_size=300))
def test_a_preview_shows_only_printable_ascii(value: bytes) -> None:
    """No byte of a hostile value reaches the terminal as itself."""
    lines = list(dlq.hex_lines(value))
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert len(lines) == (min(len(value), dlq.PREVIEW_BYTES) + 15) // 16


@given(st.text())
def test_text_cannot_steer_a_terminal(text: str) -> None:
    """Escapes stand in for control characters."""
    assert dlq.printable(text).replace("\n", "").isprintable()
