"""A prompt or a completion, read from the Avro that this release's schemas describe.

It reads what is well-formed and short of surprises, at half of fastavro's
cost; for all else the answer is None, and fastavro reads it or says what is
wrong. So nothing is accepted here that fastavro would refuse, which the
tests try with damaged frames.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.events import Kind, Message

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NULL: Final = 0
_PRESENT: Final = 2
_MORE: Final = 0x80

# The schemas' texts in order, and whether each may be null; `sent_at` follows them.
_TEXTS: Final[dict[Kind, tuple[tuple[str, bool], ...]]] = {
    Kind.PROMPT: (
        ("message_id", False),
        ("text", False),
        ("conversation_id", True),
        ("tenant", False),
        ("route", True),
        ("language", True),
    ),
    Kind.COMPLETION: (
        ("message_id", False),
        ("text", False),
        ("prompt", True),
        ("prompt_id", True),
        ("conversation_id", True),
        ("tenant", False),
        ("route", True),
        ("language", True),
    ),
}


def read_message(value: bytes, start: int, kind: Kind) -> Message | None:
    """The message whose Avro body begins at `start`; None if fastavro must look at it."""
    try:
        return _read(value, start, kind)
    # Cut short, not UTF-8, or a time that no datetime holds.
    except (IndexError, UnicodeDecodeError, OverflowError):
        return None


def _read(value: bytes, at: int, kind: Kind) -> Message | None:
    texts: dict[str, str] = {}
    whole = len(value)
    for name, nullable in _TEXTS[kind]:
        if nullable:
            branch = value[at]
            at += 1
            if branch == _NULL:
                continue
            if branch != _PRESENT:
                return None
        size = value[at]
        at += 1
        if size >= _MORE:
            more = value[at]
            if more < _MORE:  # two bytes: what nearly every text's size takes
                size, at = size & 0x7F | more << 7, at + 1
            else:
                size, at = _varint(value, at - 1)
        end = at + (size >> 1)
        if size & 1 or end > whole:  # a negative length, or one beyond the end
            return None
        texts[name] = value[at:end].decode()
        at = end
    branch = value[at]
    micros, at = _varint(value, at + 1) if branch == _PRESENT else (0, at + 1)
    if at != whole or branch not in (_NULL, _PRESENT) or not texts["message_id"]:
        return None
    sent_at = _moment(micros) if branch == _PRESENT else None
    return Message(kind=kind, sent_at=sent_at, **texts)


def _varint(value: bytes, at: int) -> tuple[int, int]:
    """An unsigned number, still in zigzag, and where it ends; ten bytes at most."""
    number = shift = 0
    while shift < 70:
        byte = value[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < _MORE:
            return number, at
        shift += 7
    raise OverflowError


def _moment(zigzag: int) -> datetime:
    seconds, micros = divmod((zigzag >> 1) ^ -(zigzag & 1), 1_000_000)
    return _EPOCH + timedelta(0, seconds, micros)
