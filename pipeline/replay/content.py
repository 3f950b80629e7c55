"""The message that an audit event was about, where its content was kept. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipeline.audit_log import Entry
from pipeline.errors import KeyUnavailable, Unopenable
from pipeline.events import AuditEvent, Message, Retention, Status
from pipeline.replay.comparison import LeftOut
from pipeline.sealing import Opener, content_of, context_of

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
    prompt = _part(event, event.context, context_of, opener) if event.context else None
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
    return _part(event, event.content, content_of, opener)


def _part(
    event: AuditEvent, kept: bytes, binding: Callable[[str], str], opener: Opener | None
) -> str | LeftOut:
    if event.retention is Retention.ENCRYPTED:
        opened = _opened(event, kept, binding(event.verdict.verdict_id), opener)
        if isinstance(opened, LeftOut):
            return opened
        kept = opened
    try:
        return kept.decode("utf-8")
    except UnicodeDecodeError:
        return LeftOut.NOT_OPENED


def _opened(
    event: AuditEvent, sealed: bytes, bound_to: str, opener: Opener | None
) -> bytes | LeftOut:
    if opener is None:
        return LeftOut.NO_KEYS
    try:
        return opener.open(event.key_id or "", sealed, bound_to=bound_to)
    except KeyUnavailable as error:
        return LeftOut.KEY_ERASED if error.erased else LeftOut.KEY_MISSING
    except Unopenable:
        return LeftOut.NOT_OPENED
