"""Which audit events a command looks at: filters and a repeatable sample. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import Misconfigured
from pipeline.events import Action, AuditEvent, Kind, Status

_SCALE: Final = 2**64
_LISTED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What an audit event must have; an empty set restricts nothing.

    `categories` holds those flagged, `ids` verdict ids or message ids. The
    sample depends on the seed and on an event's verdict id alone, so neither
    order nor the other filters change who is in it.
    """

    tenants: frozenset[str] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    actions: frozenset[Action] = frozenset()
    statuses: frozenset[Status] = frozenset()
    categories: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    sample: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise Misconfigured for a sample that is no share."""
        if not 0 < self.sample <= 1:
            raise Misconfigured(
                f"a sample of {self.sample:.6g} is not a share of the records",
                remedy="Use more than 0 and at most 1, such as 1% or 0.01",
            )

    def wants(self, event: AuditEvent) -> bool:
        """True when the event passes every filter and is in the sample."""
        verdict = event.verdict
        return (
            (not self.tenants or verdict.tenant in self.tenants)
            and (not self.kinds or verdict.kind in self.kinds)
            and (not self.actions or verdict.action in self.actions)
            and (not self.statuses or verdict.status in self.statuses)
            and (not self.categories or any(f.category in self.categories for f in verdict.flagged))
            and (not self.ids or bool(self.ids & {verdict.verdict_id, verdict.message_id}))
            and (self.sample >= 1 or _place(self.seed, verdict.verdict_id) < self.sample)
        )

    def as_json(self) -> dict[str, Any]:
        """What restricts, as a JSON document; empty where nothing does.

        A long list of ids is told by its length and digest.
        """
        sets = {
            name: sorted(getattr(self, name))
            for name in ("tenants", "kinds", "actions", "statuses", "categories")
        } | {"ids": _told(self.ids)}
        found: dict[str, Any] = {name: values for name, values in sets.items() if values}
        return found | ({"sample": self.sample, "seed": self.seed} if self.sample < 1 else {})


def parse_share(text: str) -> float:
    """A share as people write one, `1%` or `0.01`; raises Misconfigured for none."""
    number = text.strip()
    try:
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise Misconfigured(f"{text!r} is not a share", remedy="Write 1% or 0.01")
    return share


def _told(ids: frozenset[str]) -> list[str]:
    if len(ids) <= _LISTED:
        return sorted(ids)
    digest = hashlib.sha256("\n".join(sorted(ids)).encode("utf-8", "surrogatepass")).hexdigest()
    return [f"{len(ids):,} ids, sha256:{digest}"]


def _place(seed: int, verdict_id: str) -> float:
    """Where an id falls in [0, 1), evenly, by SHA-256."""
    digest = hashlib.sha256(f"{seed}/{verdict_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / _SCALE
