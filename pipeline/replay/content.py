"""The message that an audit event was about, where its content was kept. Pure."""

from __future__ import annotations

from typing import Final, Protocol

from pipeline.audit_log import Entry
from pipeline.errors import SluiceError
from pipeline.events import AuditEvent, Message, Retention, Status
from pipeline.replay.comparison import LeftOut


class Opener(Protocol):
    """Opens content that was sealed with a tenant's key."""

    def open(self, key_id: str, ciphertext: bytes, *, bound_to: str) -> bytes:
        """The content; raises a SluiceError when it cannot be opened.

        The error has an attribute `erased` where the key is why: True when it
        was erased, False when it is not at hand.
        """


_NOTHING_KEPT: Final = {
    Retention.NONE: LeftOut.NOT_KEPT,
    Retention.HASH: LeftOut.HASH_ONLY,
    Retention.UNKNOWN: LeftOut.UNKNOWN_WORD,
}


def message_of(entry: Entry, opener: Opener | None) -> Message | LeftOut:
    """The message to score again, or why there is none."""
    event, verdict = entry.event, entry.event.verdict
    if verdict.status is Status.UNSCANNED:
        return LeftOut.NOT_SCANNED
    text = text_of(event, opener)
    if isinstance(text, LeftOut):
        return text
    prompt = _part(event, event.context, "context", opener) if event.context else None
    if isinstance(prompt, LeftOut):
        return prompt
    return Message(
        message_id=verdict.message_id,
        kind=verdict.kind,
        text=text,
        conversation_id=verdict.conversation_id,
        tenant=verdict.tenant,
        route=event.route,
        language=event.language,
        prompt=prompt,
        prompt_id=event.prompt_id,
        sent_at=event.sent_at,
    )


def text_of(event: AuditEvent, opener: Opener | None) -> str | LeftOut:
    """The text that was judged, or why it is not there."""
    if event.content is None:
        return _NOTHING_KEPT.get(event.retention, LeftOut.NOT_KEPT)
    return _part(event, event.content, "content", opener)


def _part(event: AuditEvent, kept: bytes, name: str, opener: Opener | None) -> str | LeftOut:
    if event.retention is Retention.ENCRYPTED:
        opened = _opened(event, kept, name, opener)
        if isinstance(opened, LeftOut):
            return opened
        kept = opened
    try:
        return kept.decode("utf-8")
    except UnicodeDecodeError:
        return LeftOut.NOT_OPENED


def _opened(event: AuditEvent, sealed: bytes, name: str, opener: Opener | None) -> bytes | LeftOut:
    if opener is None:
        return LeftOut.NO_KEYS
    try:
        bound_to = f"{event.verdict.verdict_id}/{name}"
        return opener.open(event.key_id or "", sealed, bound_to=bound_to)
    except SluiceError as error:
        erased = getattr(error, "erased", None)
        if erased is None:
            return LeftOut.NOT_OPENED
        return LeftOut.KEY_ERASED if erased else LeftOut.KEY_MISSING
