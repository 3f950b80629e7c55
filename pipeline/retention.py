"""What the audit log keeps of a message's texts, by policy. Pure, but for the sealer.

The text is plain in exactly one case, that the policy says `plain`. Where it
says `encrypted` and nothing can be sealed, the hash alone is kept: a lost key
costs texts, never a verdict, and never secrecy.
"""

from __future__ import annotations

import hashlib

from msgspec import Struct

from pipeline.errors import Misconfigured
from pipeline.events import Message, Retention
from pipeline.sealing import Sealed, Sealer, content_of, context_of


class Kept(Struct, frozen=True, kw_only=True, gc=False):
    """The content fields of an audit event; `retention` is what was done, not what was asked."""

    retention: Retention
    content_hash: str = ""
    content: bytes | None = None
    context: bytes | None = None
    key_id: str | None = None


def keep(message: Message, retention: Retention, verdict_id: str, sealer: Sealer) -> Kept:
    """What is kept of a message under a retention; raises nothing for want of a key."""
    match retention:
        case Retention.PLAIN:
            return Kept(
                retention=retention,
                content_hash=content_hash(message.text),
                content=message.text.encode(),
                context=message.prompt.encode() if message.prompt else None,
            )
        case Retention.ENCRYPTED:
            try:
                return _sealed(message, verdict_id, sealer)
            except Misconfigured:  # whoever gave the sealer has been told by it
                return _hashed(message)
        case Retention.HASH:
            return _hashed(message)
        case _:
            return Kept(retention=retention)


def content_hash(text: str) -> str:
    """`sha256:` and the hex digest of the text's UTF-8 bytes."""
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _hashed(message: Message) -> Kept:
    return Kept(retention=Retention.HASH, content_hash=content_hash(message.text))


def _sealed(message: Message, verdict_id: str, sealer: Sealer) -> Kept:
    content, context = _one_key(message, verdict_id, sealer)
    return Kept(
        retention=Retention.ENCRYPTED,
        content_hash=content_hash(message.text),
        content=content.ciphertext,
        context=None if context is None else context.ciphertext,
        key_id=content.key_id,
    )


def _one_key(message: Message, verdict_id: str, sealer: Sealer) -> tuple[Sealed, Sealed | None]:
    """Content and context under one key, also where it is rotated between the two."""

    def sealed(text: str, bound_to: str) -> Sealed:
        return sealer.seal(message.tenant, text.encode(), bound_to=bound_to)

    content = sealed(message.text, content_of(verdict_id))
    if not message.prompt:
        return content, None
    context = sealed(message.prompt, context_of(verdict_id))
    if context.key_id != content.key_id:
        content = sealed(message.text, content_of(verdict_id))
    if context.key_id != content.key_id:
        raise Misconfigured(
            "the tenant's key changes with every text", remedy="Rotate keys less often"
        )
    return content, context
