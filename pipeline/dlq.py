"""Dead letters as people meet them: find, explain, preview, send again. Pure.

A dead letter answers to two positions: that of the input, which its headers
keep, and its own in the dead-letter topic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from msgspec import structs

from pipeline import headers
from pipeline.errors import Misconfigured, Reason
from pipeline.events import DeadLetter, Position
from pipeline.ports import Outgoing
from pipeline.settings import TopicSettings

OWN_TOPIC: Final = "dlq"
"""Short for the dead-letter topic in a position that a person types."""

PREVIEW_BYTES: Final = 64

WHAT_TO_DO: Final = {
    Reason.NULL_VALUE: "A tombstone holds nothing to judge: publish a value.",
    Reason.NOT_FRAMED: "Frame the Avro value, or send JSON with the header content-type:"
    " application/json.",
    Reason.UNKNOWN_SCHEMA: "Set registry.url to the registry it was written with, or publish with"
    " an id of schemas/ids.json; then retry.",
    Reason.BAD_AVRO: "Repair the publisher: the bytes do not fit the schema that the frame names.",
    Reason.BAD_JSON: "Repair the publisher: send one JSON object a message.",
    Reason.BAD_ENCODING: "Repair the publisher: send UTF-8.",
    Reason.WRONG_TYPE: "Repair the publisher: send the field with the type that the schema names.",
    Reason.MISSING_FIELD: "Repair the publisher: set the field.",
    Reason.EMPTY_TEXT: "Nothing to do, or have the publisher leave empty texts out.",
    Reason.OVERSIZE: "Publish the text in parts, or raise limits.max_text_bytes and retry.",
    Reason.BAD_TIMESTAMP: "Check the publisher's clock and unit (microseconds since 1970, UTC).",
    Reason.UNKNOWN_TENANT: "Add the tenant to the policy, or set unknown_tenant = 'default'; then"
    " retry.",
    Reason.GUARD_REFUSED: "Compare the guard's card with the served model (`sluice doctor`); then"
    " retry.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A dead letter, where in the dead-letter topic it lies, and its input's size and hash."""

    at: Position
    letter: DeadLetter
    size_bytes: int
    value_sha256: str = ""

    def without_value(self) -> Found:
        """The same without its bytes, so that a long list of them stays small."""
        return replace(self, letter=structs.replace(self.letter, value=None))


def found(
    at: Position, *, key: bytes | None, value: bytes | None, record_headers: headers.Headers
) -> Found | None:
    """The dead letter in a record; None when Sluice did not write the record."""
    try:
        letter = headers.dead_letter(key=key, value=value, headers=record_headers)
    except ValueError:
        return None
    return Found(
        at=at,
        letter=letter,
        size_bytes=letter.left_out_bytes or len(value or b""),
        value_sha256=letter.left_out_sha256 or hashlib.sha256(value or b"").hexdigest(),
    )


def what_to_do(reason: str) -> str:
    """The remedy for a reason; for one of another release, where to look."""
    known = reason in set(Reason)
    return WHAT_TO_DO[Reason(reason)] if known else "See the detail; a newer Sluice wrote this."


def parse_position(text: str, dead_letter_topic: str) -> Position:
    """The position in `topic:partition:offset` or `dlq:partition:offset`.

    Raises Misconfigured for anything else.
    """
    topic, _, numbers = text.partition(":")
    partition, _, offset = numbers.partition(":")
    if not (topic and _is_number(partition) and _is_number(offset)):
        raise Misconfigured(
            f"{text!r} is not a position",
            remedy="Write topic:partition:offset of the input, or dlq:partition:offset of the"
            " dead letter, as `sluice dlq ls` prints them",
        )
    name = dead_letter_topic if topic == OWN_TOPIC else topic
    return Position(topic=name, partition=int(partition), offset=int(offset))


def matches(one: Found, position: Position) -> bool:
    """Whether a dead letter lies, or its input lay, at a position."""
    return position in (one.at, one.letter.position)


def is_of_input(letter: DeadLetter, topics: TopicSettings) -> bool:
    """Whether the letter's message lay in an input topic, as every message of ours did.

    Whoever may write dead letters chooses what they say; none leads to another topic.
    """
    return letter.position.topic in (topics.prompts, topics.completions)


def not_superseded(letters: Sequence[Found]) -> list[Found]:
    """The latest letter of each message, oldest first.

    A message that was sent again and came back is several letters; so is one
    that Kafka delivered twice.
    """
    ordered = sorted(letters, key=lambda one: one.letter.failed_at)
    latest = {_message(one): one for one in ordered}
    return [one for one in ordered if latest[_message(one)] is one]


def _message(one: Found) -> tuple[object, ...]:
    """What the letters of one message share: where it first lay, and all that was published.

    A publisher may set any header, that of a message sent again as well: whoever names
    another's position there must not stand for a message that says something else.
    """
    letter = one.letter
    first = first_position(letter)
    return first, letter.position.topic, letter.key, one.value_sha256, _original(letter)


def first_position(letter: DeadLetter) -> str:
    """Where the message lay before it was ever sent again."""
    named = headers.first(letter.headers, headers.RETRY_OF) if letter.attempts > 1 else None
    return named or str(letter.position)


def _original(letter: DeadLetter) -> headers.Headers:
    """The headers that the message was first published with."""
    return tuple(each for each in letter.headers if each[0].lower() != headers.RETRY_OF)


def again(letter: DeadLetter) -> Outgoing:
    """The original record, with its count of attempts, for its original topic."""
    return Outgoing(
        topic=letter.position.topic,
        key=letter.key,
        value=letter.value,
        headers=(
            *_original(letter),
            (headers.RETRY_OF, first_position(letter).encode()),
            (headers.DLQ_ATTEMPTS, str(letter.attempts).encode()),
        ),
    )


def hex_lines(value: bytes, limit_bytes: int = PREVIEW_BYTES) -> Iterable[str]:
    """Offset, hex and printable ASCII of the first bytes, sixteen a line."""
    for start in range(0, min(len(value), limit_bytes), 16):
        row = value[start : min(start + 16, limit_bytes)]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<47}  |{shown}|"


def printable(value: bytes | str) -> str:
    """Text that cannot steer a terminal: control characters as escapes."""
    text = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def as_json(one: Found) -> dict[str, Any]:
    """A dead letter as `--json` prints it, without key, headers and bytes."""
    letter = one.letter
    return {
        "position": str(letter.position),
        "dead_letter": str(one.at),
        "failed_at": letter.failed_at.isoformat(),
        "reason": letter.reason,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "size_bytes": one.size_bytes,
        "left_out": bool(letter.left_out_bytes),
    }


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
