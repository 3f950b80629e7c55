"""Judgements of contents seen before, least recently used out first. Pure.

Kept is what the guards said, by a SHA-256 over all of a message that they see:
its kind, its text and the prompt it answers. No text is kept. The policy is no
part of the key: it is applied to the scores afterwards, each time, so that a
new policy decides anew over old scores. Bounds and cards are fixed for a
worker's life, and so for its cache's.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping

from msgspec.structs import replace

from pipeline.events import Judgement, Message

Judgements = tuple[Judgement, ...]


def content_key(message: Message) -> bytes:
    """What two messages share when a guard sees the same of both, and only then."""
    digest = hashlib.sha256()
    for part in (message.kind.value, message.text, message.prompt or ""):
        encoded = part.encode("utf-8", "surrogatepass")
        # With its length in front, no part can pass for the end of the one before.
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.digest()


def recalled(judgements: Judgements) -> Judgements:
    """The judgements without a guard call of their own: no rows, no wait, no inference."""
    return tuple(replace(each, batch_rows=0, queued_s=0.0, inference_s=0.0) for each in judgements)


class ScoreCache:
    """At most `entries` contents' judgements, an entry's size being the same for all."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: OrderedDict[bytes, Judgements] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes, versions: Mapping[str, str]) -> Judgements | None:
        """The recalled judgements; None where there are none of these guards' versions.

        `versions`: what each guard last answered as. A judgement by another
        version is forgotten.
        """
        found = self._kept.get(key)
        if found is None:
            return None
        if any(versions.get(each.guard.name) != each.guard.version for each in found):
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, judgements: Judgements) -> None:
        """Keep what the guards said of a content; the least recently used makes room."""
        if not self._entries:
            return
        self._kept[key] = recalled(judgements)
        self._kept.move_to_end(key)
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)
