"""The records that cross topics, frozen; and the words they are made of.

They are msgspec's Structs: a message makes some fifteen records, and a frozen dataclass takes
three times as long to make. `msgspec.structs.replace` copies one. Frozen and made of what was
there before them, they are in no reference cycle: the garbage collector does not look at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, Self

from msgspec import Struct

UNSAFE: Final = "unsafe"
"""The label of the overall hazard score, beside the per-category ones."""


class Kind(StrEnum):
    """Which side of the conversation a message is."""

    PROMPT = "prompt"
    COMPLETION = "completion"


class Action(StrEnum):
    """What the application should do, from mildest to most severe."""

    UNKNOWN = "UNKNOWN"
    ALLOW = "allow"
    FLAG = "flag"
    REVIEW = "review"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """Rank among actions; UNKNOWN ranks with block, so it fails closed."""
        return _SEVERITY[self]


_SEVERITY: Final = {
    Action.ALLOW: 0,
    Action.FLAG: 1,
    Action.REVIEW: 2,
    Action.BLOCK: 3,
    Action.UNKNOWN: 3,
}


class Status(StrEnum):
    """How far the guard got: only `scored` means that all of it was judged."""

    UNKNOWN = "UNKNOWN"
    SCORED = "scored"
    DEGRADED = "degraded"
    UNSCANNED = "unscanned"


class Retention(StrEnum):
    """What the audit log keeps of a message's content."""

    UNKNOWN = "UNKNOWN"
    NONE = "none"
    HASH = "hash"
    PLAIN = "plain"
    ENCRYPTED = "encrypted"


class Ciphertext(bytes):
    """Sealed content: a format version, a nonce and what AES-GCM made of a text.

    A type of its own, so that no plain text can stand where a sealed one is
    promised. Only sealing and decoding make one; raises ValueError for bytes
    that cannot be one.
    """

    __slots__ = ()
    VERSION: Final = 1
    NONCE_BYTES: Final = 12
    TAG_BYTES: Final = 16

    def __new__(cls, value: bytes) -> Self:
        """Bytes of the known format and at least as long as an empty text's seal."""
        if len(value) < 1 + cls.NONCE_BYTES + cls.TAG_BYTES or value[0] != cls.VERSION:
            raise ValueError("these bytes are no sealed content of a known format")
        return super().__new__(cls, value)


class Position(Struct, frozen=True, kw_only=True, gc=False):
    """Where an input lies in Kafka; the identity that redelivery cannot change."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """`topic:partition:offset`, which is also the verdict id."""
        return f"{self.topic}:{self.partition}:{self.offset}"


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """A prompt or a completion as published, decoded and checked."""

    message_id: str
    kind: Kind
    text: str
    conversation_id: str | None = None
    tenant: str = ""
    route: str | None = None
    language: str | None = None
    prompt: str | None = None
    prompt_id: str | None = None
    sent_at: datetime | None = None


class Received(Struct, frozen=True, kw_only=True, gc=False):
    """A message with its position, arrival time (UTC) and Kafka headers."""

    message: Message
    position: Position
    received_at: datetime
    headers: tuple[tuple[str, bytes], ...] = ()


class GuardRef(Struct, frozen=True, kw_only=True, gc=False):
    """Which guard judged: name, Triton version, digest of weights and card."""

    name: str
    version: str
    digest: str


class PolicyRef(Struct, frozen=True, kw_only=True, gc=False):
    """Which policy decided: id, version and digest of its canonical form."""

    id: str
    version: str
    digest: str


class Coverage(Struct, frozen=True, kw_only=True, gc=False):
    """How much of the text the guard saw, in tokens; 0 <= scanned <= total."""

    scanned_tokens: int
    total_tokens: int

    @property
    def complete(self) -> bool:
        """True when every token was scanned."""
        return self.scanned_tokens >= self.total_tokens


class Judgement(Struct, frozen=True, kw_only=True, gc=False):
    """One guard's scores for one message, each in 0..1, by category."""

    guard: GuardRef
    scores: Mapping[str, float]
    coverage: Coverage
    template_digest: str
    windows: int
    batch_rows: int
    queued_s: float
    inference_s: float


class Flagged(Struct, frozen=True, kw_only=True, gc=False):
    """A category whose score crossed a threshold, and what that asked for."""

    category: str
    score: float
    threshold: float
    action: Action
    origin: str


class Verdict(Struct, frozen=True, kw_only=True, gc=False):
    """What applications act on: one per input, the same id at every redelivery."""

    verdict_id: str
    message_id: str
    conversation_id: str | None
    tenant: str
    kind: Kind
    action: Action
    status: Status
    reason: str
    taxonomy: str
    scores: Mapping[str, float]
    flagged: tuple[Flagged, ...]
    coverage: Coverage
    guards: tuple[GuardRef, ...]
    policy: PolicyRef
    received_at: datetime
    scored_at: datetime | None
    emitted_at: datetime
    source: Position


class ChainLink(Struct, frozen=True, kw_only=True, gc=False):
    """An audit event's place in its writer's hash chain.

    `previous` is the SHA-256 of the Avro body of the event before it; empty
    for sequence 0.
    """

    chain: str
    sequence: int
    previous: bytes


class AuditEvent(Struct, frozen=True, kw_only=True, gc=False):
    """A verdict and everything needed to prove it and to replay it.

    Under retention `encrypted` it holds a key's id and sealed content, or it
    cannot be made: plain text under that word raises ValueError.
    """

    verdict: Verdict
    content_hash: str
    retention: Retention
    content: bytes | None
    context: bytes | None
    route: str | None
    language: str | None
    prompt_id: str | None
    sent_at: datetime | None
    template_digest: str
    windows: int
    batch_rows: int
    queued_s: float
    inference_s: float
    worker_id: str
    attempt: int
    key_id: str | None = None
    chain: ChainLink | None = None

    def __post_init__(self) -> None:
        """Refuse plain text that claims to be encrypted."""
        if self.retention is not Retention.ENCRYPTED:
            return
        sealed = isinstance(self.content, Ciphertext) and isinstance(
            self.context, Ciphertext | None
        )
        if not sealed or not self.key_id:
            raise ValueError("retention 'encrypted' takes a key id and sealed content only")


class DeadLetter(Struct, frozen=True, kw_only=True, gc=False):
    """An input that can never be judged: its original bytes, and why.

    `left_out_bytes` is the size of a value that was too large to be kept, whose
    SHA-256 stands in `left_out_sha256` as hex; 0 where the value is here.
    """

    position: Position
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    reason: str
    detail: str
    failed_at: datetime
    attempts: int = 1
    kafka_timestamp_ms: int | None = None
    left_out_bytes: int = 0
    left_out_sha256: str = ""


class Outcome(Struct, frozen=True, kw_only=True, gc=False):
    """The one accountable end of a judged message: verdict and audit event."""

    verdict: Verdict
    audit: AuditEvent
    headers: tuple[tuple[str, bytes], ...] = ()
