"""A message as it goes to Kafka: encoded, keyed, with CloudEvents and trace headers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import orjson
from msgspec.structs import replace
from opentelemetry import propagate

from pipeline import codec, headers
from pipeline.errors import Reason, Rejected
from pipeline.events import Kind, Message
from pipeline.headers import Headers
from pipeline.ports import Outgoing

Wire = Literal["avro", "json"]
"""How values are encoded: Avro in the Confluent frame, or JSON by content type."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def prompt(text: str, *, message_id: str | None = None, **fields: Any) -> Message:
    """A prompt to publish, with a fresh id unless one is given.

    `fields` are those of `Message`: conversation_id, tenant, route, language.
    """
    return Message(kind=Kind.PROMPT, text=text, message_id=message_id or new_id(), **fields)


def completion(text: str, *, message_id: str | None = None, **fields: Any) -> Message:
    """A completion to publish; `prompt` (its text) helps the guard, `prompt_id` links it."""
    return Message(kind=Kind.COMPLETION, text=text, message_id=message_id or new_id(), **fields)


def new_id() -> str:
    """A message id that nobody else has."""
    return uuid.uuid4().hex


class Envelope:
    """Puts messages into records for the input topics."""

    def __init__(
        self,
        topics: Mapping[Kind, str],
        schemas: codec.Schemas,
        *,
        wire: Wire,
        source: str,
        max_bytes: int,
    ) -> None:
        """`source` is the CloudEvents source; `max_bytes` bounds value, key and headers."""
        self._topics = topics
        self._schemas = schemas
        self._wire = wire
        self._source = source
        self._max_bytes = max_bytes

    def around(self, message: Message, given: Headers = ()) -> Outgoing:
        """The record of a message; stamps `sent_at` when None.

        Trace context in `given`, else that of the current span, goes along.
        Raises Rejected when it cannot be encoded or is too large for Kafka.
        """
        sent_at = message.sent_at or datetime.now(UTC)
        if sent_at.tzinfo is None:
            raise Rejected(
                Reason.BAD_TIMESTAMP, "'sent_at' has no time zone", remedy="Use datetime.now(UTC)"
            )
        try:
            return self._record(replace(message, sent_at=sent_at), sent_at, given)
        except UnicodeEncodeError:
            raise Rejected(
                Reason.BAD_ENCODING, "a string holds a lone surrogate", remedy="Send valid Unicode"
            ) from None

    def _record(self, message: Message, sent_at: datetime, given: Headers) -> Outgoing:
        if self._wire == "json":
            value, content_type = _json(message, sent_at), headers.JSON
        else:
            value, content_type = codec.encode_message(message, self._schemas), headers.AVRO
        stamped = headers.event(
            id=message.message_id,
            type=f"moderation.{message.kind.value}.v1",
            source=self._source,
            time=sent_at,
            trace=headers.trace_of(given) or _current_trace(),
        )
        record = Outgoing(
            topic=self._topics[message.kind],
            key=message.conversation_id.encode() if message.conversation_id else None,
            value=value,
            headers=_of_type(stamped, content_type),
        )
        self._bound(record)
        return record

    def _bound(self, record: Outgoing) -> None:
        """Raise Rejected for more than Kafka takes; a long conversation id counts twice."""
        size_bytes = _size_bytes(record)
        if size_bytes > self._max_bytes:
            raise Rejected(
                Reason.OVERSIZE,
                f"the message has {size_bytes:,} bytes with its key and headers,"
                f" Kafka takes {self._max_bytes:,}",
                remedy="Publish it in parts, or raise topics.max_message_bytes",
            )


def _size_bytes(record: Outgoing) -> int:
    named = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.value or b"") + len(record.key or b"") + named


def _json(message: Message, sent_at: datetime) -> bytes:
    fields = ["message_id", "text", "conversation_id", "tenant", "route", "language"]
    if message.kind is Kind.COMPLETION:
        fields += ["prompt", "prompt_id"]
    document: dict[str, Any] = {name: getattr(message, name) for name in fields}
    document["sent_at"] = (sent_at - _EPOCH) // timedelta(microseconds=1)
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise Rejected(
            Reason.BAD_ENCODING, "a string is not valid Unicode", remedy="Send valid Unicode"
        ) from None


def _of_type(stamped: Headers, content_type: str) -> Headers:
    """The headers, with the content type that the value really has."""
    return tuple(
        (key, content_type.encode() if key == headers.CONTENT_TYPE else value)
        for key, value in stamped
    )


def _current_trace() -> Headers:
    """Trace context of the current span; empty when there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return headers.trace_of((key, value.encode()) for key, value in carrier.items())
