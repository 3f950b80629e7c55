"""What the policies topic says: every policy and card that judged, and which is in force.

A policy is put in force by an *activation*, so that the topic also tells since
when. What cannot be used is refused with its reason and changes nothing: the
policy in force is that of the latest activation that can be used. So a worker
that starts today and one that has run for a week come to the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from pipeline import codec, policy_file
from pipeline.errors import Misconfigured
from pipeline.guards import cards
from pipeline.policy import Policy

SHORTEST_DIGEST: Final = 6
"""Hex digits that a digest may be shortened to."""
_PREFIX: Final = "sha256:"


class RecordKind(StrEnum):
    """What a record of the policies topic holds."""

    UNKNOWN = "UNKNOWN"
    POLICY = "policy"
    GUARD_CARD = "guard_card"
    ACTIVATION = "activation"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A policy, a guard's card, or the word that a policy is in force from here on."""

    record: RecordKind
    digest: str
    id: str
    version: str
    document: str | None
    published_at: datetime
    published_by: str = ""
    note: str | None = None

    @property
    def key(self) -> bytes:
        """The compaction key: a document once, every activation for ever."""
        when = f":{self.published_at.timestamp():.6f}" if self.document is None else ""
        return f"{self.record.value}:{self.digest}{when}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A record and its offset in the policies topic."""

    record: PolicyRecord
    offset: int


def of_policy(text: str, *, name: str, at: datetime, by: str, note: str | None) -> PolicyRecord:
    """The record of a policy file's text; raises Misconfigured naming file, key and remedy."""
    ref = policy_file.parse(text, name=name).ref
    return PolicyRecord(
        record=RecordKind.POLICY,
        digest=ref.digest,
        id=ref.id,
        version=ref.version,
        document=text,
        published_at=at,
        published_by=by,
        note=note,
    )


def of_card(text: str, *, at: datetime, by: str) -> PolicyRecord:
    """The record of a guard's card; raises Misconfigured when it is none."""
    identity = cards.identity(text)
    return PolicyRecord(
        record=RecordKind.GUARD_CARD,
        digest=identity.digest,
        id=identity.name,
        version=identity.version,
        document=text,
        published_at=at,
        published_by=by,
    )


def activation(policy: PolicyRecord, *, at: datetime, by: str, note: str | None) -> PolicyRecord:
    """The record that puts a published policy in force."""
    return replace(
        policy,
        record=RecordKind.ACTIVATION,
        document=None,
        published_at=at,
        published_by=by,
        note=note,
    )


def not_a_policy(record: PolicyRecord) -> Misconfigured:
    """The error for a digest that names a guard's card where a policy is wanted."""
    return Misconfigured(
        f"{record.digest} is the card of guard {record.id[:80]!r}, not a policy",
        remedy="`sluice policy history` lists the policies",
    )


def encode(record: PolicyRecord, schemas: codec.Schemas) -> bytes:
    """The framed Avro of a record."""
    fields = {name: getattr(record, name) for name in PolicyRecord.__slots__}
    return codec.write({**fields, "record": record.record.value}, codec.POLICY, schemas)


def decode(value: bytes, schemas: codec.Schemas) -> PolicyRecord:
    """The record in a frame; raises Rejected when it is none."""
    fields = codec.read(value, codec.POLICY, schemas)
    return PolicyRecord(**{**fields, "record": RecordKind(fields["record"])})


class History:
    """Everything the topic has said so far; fed in its order.

    `check` raises Misconfigured for a policy that may not be put in force here.
    """

    def __init__(self, check: Callable[[Policy], None] = lambda _policy: None) -> None:
        self._check = check
        self._policies: dict[str, Policy] = {}
        self._cards: dict[str, str] = {}
        self._activations: list[Placed] = []
        self._documents: dict[str, Placed] = {}

    def add(self, record: PolicyRecord, offset: int) -> None:
        """Take a record in; raises Misconfigured saying why it is refused."""
        placed = Placed(record=record, offset=offset)
        match record.record:
            case RecordKind.POLICY:
                self._policies[record.digest] = _policy(record)
                self._documents[record.digest] = placed
            case RecordKind.GUARD_CARD:
                self._cards[record.digest] = _card(record)
                self._documents[record.digest] = placed
            case RecordKind.ACTIVATION:
                # Kept even if refused now: its policy may come later, after compaction.
                self._activations.append(placed)
                self._usable(record)
            case _:
                raise Misconfigured(
                    "a record of a kind that this release does not know",
                    remedy="Upgrade, or leave it: it changes nothing here",
                )

    def policy(self, digest: str) -> Policy | None:
        """The policy of a digest; None where the topic has none."""
        return self._policies.get(digest)

    def card(self, digest: str) -> str | None:
        """The text of a guard's card by its digest; None where the topic has none."""
        return self._cards.get(digest)

    def document(self, digest: str) -> Placed | None:
        """The record that holds a policy or a card; None where the topic has none."""
        return self._documents.get(digest)

    @property
    def active(self) -> Placed | None:
        """The activation in force: the latest that can be used."""
        for placed in reversed(self._activations):
            try:
                self._usable(placed.record)
            except Misconfigured:
                continue
            return placed
        return None

    @property
    def placed(self) -> list[Placed]:
        """Every record that was not refused, and every activation, in the topic's order."""
        found = [*self._documents.values(), *self._activations]
        return sorted(found, key=lambda each: each.offset)

    def find(self, given: str) -> Placed:
        """The one document whose digest begins so; raises Misconfigured for none or several."""
        wanted = given.removeprefix(_PREFIX)
        found = [
            placed
            for digest, placed in self._documents.items()
            if digest.removeprefix(_PREFIX).startswith(wanted)
        ]
        if len(wanted) >= SHORTEST_DIGEST and len(found) == 1:
            return found[0]
        problem = "is the beginning of several" if len(found) > 1 else "is no digest that was ever"
        raise Misconfigured(
            f"{given[:80]!r} {problem} published",
            remedy="`sluice policy history` lists them; give six hex digits or more",
        )

    def _usable(self, record: PolicyRecord) -> None:
        policy = self._policies.get(record.digest)
        if policy is None:
            raise Misconfigured(
                f"it activates {record.digest[:80]}, and no such policy was published",
                remedy="Publish it with `sluice policy publish FILE`",
            )
        self._check(policy)


def _policy(record: PolicyRecord) -> Policy:
    policy = policy_file.parse(record.document or "", name=f"{record.id[:80]!r} in the topic")
    if policy.ref.digest != record.digest:
        raise Misconfigured(
            f"policy {record.id[:80]!r} does not have the digest it claims",
            remedy="Publish it with `sluice policy publish FILE`",
        )
    return policy


def _card(record: PolicyRecord) -> str:
    text = record.document or ""
    if cards.identity(text).digest != record.digest:
        raise Misconfigured(
            f"the card of guard {record.id[:80]!r} does not have the digest it claims",
            remedy="A worker with that guard publishes its card when it starts",
        )
    return text
