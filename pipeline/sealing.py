"""Content that only a tenant's key can read: the ports, and AES-256-GCM.

A sealed text is one byte of format version, a random nonce of 96 bits, then
the ciphertext with its tag of 128 bits (NIST SP 800-38D). What it is bound to
goes in as additional data: the event's id and the field's name, so that a
ciphertext cannot be moved to another event or field. Keys come from behind
the ports: the key folder (`adapters/keys.py`) today; a key service can stand
there as well.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.errors import Misconfigured, SealBroken
from pipeline.events import AuditEvent, Ciphertext, Retention

KEY_BYTES: Final = 32
_VERSION: Final = bytes([Ciphertext.VERSION])
_BODY_AT: Final = len(_VERSION) + Ciphertext.NONCE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A sealed text and the id of the key that opens it."""

    key_id: str
    ciphertext: Ciphertext


class Sealer(Protocol):
    """Seals content with a tenant's active key."""

    def seal(self, tenant: str, content: bytes, *, bound_to: str) -> Sealed:
        """The sealed content.

        Raises Misconfigured naming tenant and remedy when the tenant has no
        active key.
        """


class Opener(Protocol):
    """Opens what was sealed."""

    def open(self, key_id: str, ciphertext: bytes, *, bound_to: str) -> bytes:
        """The content; raises KeyUnavailable without the key, SealBroken for a wrong seal."""


class NoKeys:
    """A sealer for where nothing is sealed: no tenant has a key."""

    def seal(self, tenant: str, content: bytes, *, bound_to: str) -> Sealed:  # noqa: ARG002
        """Raises Misconfigured, always."""
        raise Misconfigured(
            f"tenant {tenant!r} has no active key: there is no key folder",
            remedy="Set audit.keys_folder, then `sluice audit keys create`",
        )


def seal(key: bytes, content: bytes, *, bound_to: str) -> Ciphertext:
    """The content under a key of 32 bytes and a fresh nonce."""
    nonce = os.urandom(Ciphertext.NONCE_BYTES)
    body = AESGCM(key).encrypt(nonce, content, bound_to.encode())
    return Ciphertext(_VERSION + nonce + body)


def unseal(key: bytes, ciphertext: bytes, *, bound_to: str) -> bytes:
    """What was sealed under this key and binding; raises SealBroken for anything else."""
    try:
        sealed = Ciphertext(ciphertext)
        return AESGCM(key).decrypt(
            sealed[len(_VERSION) : _BODY_AT], sealed[_BODY_AT:], bound_to.encode()
        )
    except (InvalidTag, ValueError):
        raise SealBroken(
            f"the sealed content of {bound_to} is damaged or not its own",
            remedy="`sluice audit verify` tells whether the audit log was changed",
        ) from None


def content_of(verdict_id: str) -> str:
    """What the content of an event is bound to."""
    return f"{verdict_id}/content"


def context_of(verdict_id: str) -> str:
    """What the context of an event is bound to."""
    return f"{verdict_id}/context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An event's texts as plain UTF-8; None where none was kept."""

    content: bytes | None = None
    context: bytes | None = None


def opened(event: AuditEvent, opener: Opener | None) -> Opened:
    """The texts that an event holds; raises Unopenable, or Misconfigured without an opener."""
    if event.retention is Retention.PLAIN:
        return Opened(content=event.content, context=event.context)
    if event.retention is not Retention.ENCRYPTED:
        return Opened()
    if opener is None:
        raise Misconfigured(
            "this content is encrypted, and there is no key folder to open it with",
            remedy="Set audit.keys_folder to the folder that holds the tenants' keys",
        )
    named, key_id = event.verdict.verdict_id, event.key_id or ""
    content, context = event.content or b"", event.context
    return Opened(
        content=opener.open(key_id, content, bound_to=content_of(named)),
        context=None
        if context is None
        else opener.open(key_id, context, bound_to=context_of(named)),
    )
