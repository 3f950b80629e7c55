"""In-memory stand-ins for what the core talks to, and short ways to build records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from pipeline import codec
from pipeline.asking import CallLimits
from pipeline.audit_writer import ChainedLog
from pipeline.conveyor import Limits
from pipeline.dead_letters import Bound
from pipeline.errors import DependencyUnavailable, SluiceError
from pipeline.events import Judgement, Kind, Message, Position, Received
from pipeline.guards import cards
from pipeline.health import Health
from pipeline.ledger import Slot
from pipeline.moderation import Intake
from pipeline.policy import Policy
from pipeline.ports import Inference, Outgoing
from pipeline.scoring import Guard, Scored, Scorer
from pipeline.sealing import Sealer
from pipeline.stream import Flow, FlowLimits, Inbound, Topics
from pipeline.tokenization import Tokenizer

NOON: Final = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
TOPICS: Final = Topics(
    prompts="prompts", completions="completions", verdicts="verdicts", audit="audit",
    dead_letters="dead-letters",
)  # fmt: skip
WORDS: Final = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "fine", "unsafe", "minor", "poison", "nan")
WORD_IDS: Final = {word: index for index, word in enumerate(WORDS)}
LABELS: Final = ("unsafe", "S4", "injection")


@dataclass(slots=True)
class FakeClock:
    """Time that passes only through `advance`."""

    elapsed_s: float = 0.0

    def now(self) -> datetime:
        """Noon, plus what has passed."""
        return NOON + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed_s += seconds


@dataclass(slots=True)
class MemoryPublisher:
    """Keeps what was published; raises the scripted errors first, one a call.

    As an appender it has one partition a topic.
    """

    failures: list[SluiceError] = field(default_factory=list)
    records: list[Outgoing] = field(default_factory=list)
    calls: int = 0

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Keep the records, or raise the next scripted error and keep none."""
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        self.records.extend(records)

    async def partitions(self, topic: str, keys: Sequence[bytes | None]) -> list[int]:
        """The only one, for each key."""
        return [0] * len(keys)

    async def append(
        self, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> tuple[int, asyncio.Future[int]]:
        """Publish, acknowledged at once."""
        offset = len(self.to(topic))
        await self.publish(records)
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(offset)
        return len(records), acknowledged

    def to(self, topic: str) -> list[Outgoing]:
        """The records published to one topic."""
        return [record for record in self.records if record.topic == topic]


Script = Callable[[Sequence[Sequence[int]]], "np.ndarray[Any, Any] | SluiceError"]


def by_words(rows: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
    """Logits of +4 or -4 per label, by which of the known words a row holds."""
    names = ("unsafe", "minor", "nan")
    marks = [[WORD_IDS[name] in row for name in names] for row in rows]
    return np.asarray(
        [[np.nan if bad else 4.0 if u or m else -4.0, 4.0 if m else -4.0, -4.0]
         for u, m, bad in marks],
        dtype=np.float32,
    )  # fmt: skip


@dataclass(slots=True)
class ScriptedClassifier:
    """Answers each call by the next script; the last one serves for ever."""

    scripts: list[Script] = field(default_factory=lambda: [by_words])
    calls: list[list[list[int]]] = field(default_factory=list)
    version: str = "7"

    async def infer(
        self, guard: str, rows: Sequence[Sequence[int]], *, length: int, pad_id: int
    ) -> Inference:
        """What the script says for these rows; an error it returns is raised."""
        self.calls.append([list(row) for row in rows])
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        answer = script(rows)
        if isinstance(answer, SluiceError):
            raise answer
        return Inference(logits=answer, version=self.version, elapsed_s=0.01)


def away(_: Sequence[Sequence[int]]) -> SluiceError:
    """A script: the server does not answer."""
    return DependencyUnavailable("Triton does not answer", remedy="Start it")


def card_toml(tokenizer_digest: str, **replaced: str) -> str:
    """A valid card's text; `replaced` swaps the value of a key."""
    values = {
        "labels": json.dumps(list(LABELS)),
        "roles": '["prompt", "completion"]',
        "max_length": "16",
        "overlap": "2",
        "context_length": "4",
        "buckets": "[8, 16]",
        "scale": "[1.0, 1.0, 1.0]",
        "bias": "[0.0, 0.0, 0.0]",
        "model": json.dumps("sha256:" + "a" * 64),
        "tokenizer_file": '"tokenizer.json"',
        "tokenizer": json.dumps(tokenizer_digest),
        "taxonomy": '"sluice-1"',
        "threshold": "0.5",
    } | replaced
    return _CARD.format_map(values)


_CARD: Final = """
[guard]
name = "tiny"
version = "1"
title = "A guard for tests"
taxonomy = {taxonomy}
labels = {labels}
activation = "sigmoid"
roles = {roles}
license = "Apache-2.0"
source = "made for the tests"

[input]
tokenizer = {tokenizer_file}
max_length = {max_length}
overlap = {overlap}
context_length = {context_length}
pad_id = 1
cls_id = 2
sep_id = 3
buckets = {buckets}
template = "[CLS] text [SEP]"

[calibration]
scale = {scale}
bias = {bias}

[digests]
model = {model}
tokenizer = {tokenizer}

[operating_points.balanced]
unsafe = {threshold}

[[golden]]
role = "prompt"
text = "fine"
scores = {{ unsafe = 0.02 }}
"""


def write_tokenizer(folder: Path) -> str:
    """Write a whole-word tokenizer into a folder; returns its digest."""
    tokenizer = RustTokenizer(WordLevel(WORD_IDS, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = Whitespace()
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return cards.sha256(path.read_bytes())


def write_card(folder: Path, **replaced: str) -> Path:
    """Write a tokenizer and a card into a folder; returns the folder."""
    text = card_toml(write_tokenizer(folder), **replaced)
    (folder / "card.toml").write_text(text)
    return folder


def write_guard(folder: Path, **replaced: str) -> Guard:
    """A guard ready to be fed, from files written into a folder."""
    card = cards.load(write_card(folder, **replaced))
    return Guard(card=card, tokenizer=Tokenizer(card.tokenizer))


def message(text: str = "fine", **changed: Any) -> Message:
    """A prompt, with whatever the test cares about changed."""
    return Message(**{"message_id": "m-1", "kind": Kind.PROMPT, "text": text} | changed)


def position(offset: int = 0, *, topic: str = "prompts", partition: int = 0) -> Position:
    """A place in the prompts topic."""
    return Position(topic=topic, partition=partition, offset=offset)


def received(offset: int = 0, text: str = "fine", **changed: Any) -> Received:
    """A message that arrived at noon."""
    return Received(message=message(text, **changed), position=position(offset), received_at=NOON)


@dataclass(slots=True)
class Commits:
    """Which offsets were acknowledged, and which were let go, in order."""

    acknowledged: list[int] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)

    def slot(self, offset: int, *, partition: int = 0, generation: int = 1) -> Slot:
        """A slot that writes down here what becomes of it."""
        return Slot(
            position=position(offset, partition=partition),
            generation=generation,
            taken_at_s=0.0,
            timestamp_ms=None,
            origin=self,
        )

    def acknowledge(self, offset: int) -> None:
        """Write an acknowledged offset down."""
        self.acknowledged.append(offset)

    def forget(self, offset: int) -> None:
        """Write an offset down that was let go."""
        self.forgotten.append(offset)


@dataclass(slots=True, eq=False, kw_only=True)
class FakeRecord:
    """A Kafka record as aiokafka gives it; `timestamp` in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] | None


@dataclass(slots=True, eq=False)
class FakeFetched:
    """Fetched records; what becomes of them is written down."""

    commits: Commits
    generation: int
    records: list[FakeRecord]
    tracked: bool = False

    def track(self) -> None:
        """A rebalance now waits for these records."""
        self.tracked = True

    def acknowledge(self, offset: int) -> None:
        """Acknowledge one of them."""
        self.commits.acknowledge(offset)

    def forget(self, offset: int) -> None:
        """Let go of one of them."""
        self.commits.forget(offset)


JSON_HEADERS: Final = (("content-type", b"application/json"),)


def json_value(text: str = "fine", **fields: Any) -> bytes:
    """A prompt as JSON."""
    return json.dumps({"message_id": "m-1", "text": text} | fields).encode()


class TrustingScorer(Scorer):
    """A scorer that takes its guard's word without golden texts."""

    def recall(self, messages: Sequence[Message]) -> list[tuple[Judgement, ...] | None]:
        """It remembers nothing."""
        return [None] * len(messages)

    async def score_alone(self, message: Message) -> Scored:
        """Its result, whatever it is."""
        return (await self.score([message]))[0]


@dataclass(slots=True)
class Bench:
    """A flow with everything around it in memory."""

    schemas: codec.Schemas
    guard: Guard
    policy: Policy
    clock: FakeClock
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    classifier: ScriptedClassifier = field(default_factory=ScriptedClassifier)
    registry: Any = None
    bound: Bound = field(default_factory=lambda: Bound(window=100, count=100, ratio=1.0))
    commits: Commits = field(default_factory=Commits)
    crashes: list[BaseException] = field(default_factory=list)
    health: Health = field(default_factory=lambda: Health(["guard"]))
    sealer: Sealer | None = None
    batch_messages: int = 8
    max_rows: int = 4

    def flow(self) -> Flow:
        """A new flow over these parts."""
        return Flow(
            topics=TOPICS,
            schemas=self.schemas,
            registry=self.registry,
            policy=lambda: self.policy,
            scorer=self.scorer(),
            publisher=self.publisher,
            audit=ChainedLog(
                TOPICS.audit, appender=self.publisher, schemas=self.schemas, worker_id="w-1"
            ),
            health=self.health,
            clock=self.clock,
            limits=self._limits(),
            worker_id="w-1",
            crash=self.crashes.append,
            sealer=self.sealer,
        )

    def scorer(self) -> TrustingScorer:
        """A scorer with one guard and small calls."""
        return TrustingScorer([self.guard], self.classifier, self.call_limits, self.clock)

    @property
    def call_limits(self) -> CallLimits:
        """Small calls, two at a time."""
        return CallLimits(max_rows=self.max_rows, max_tokens=64, max_windows=8, in_flight=2)

    def _limits(self) -> FlowLimits:
        return FlowLimits(
            conveyor=Limits(
                batch_messages=self.batch_messages,
                batch_bytes=1_000_000,
                messages_in_flight=2 * self.batch_messages,
                bytes_in_flight=2_000_000,
                buffer_messages=4,
                buffer_bytes=1_000_000,
            ),
            intake=Intake(max_text_bytes=1000, max_future_s=60.0),
            dead_letters=self.bound,
            drain_s=0.2,
            max_value_bytes=2000,
            max_dead_letter_bytes=4000,
        )

    def inbound(
        self, flow: Flow, offset: int, value: bytes | None, *, kind: Kind = Kind.PROMPT,
        headers: Sequence[tuple[str, Any]] = JSON_HEADERS,
    ) -> Inbound:  # fmt: skip
        """A message taken at an offset and entered in the flow's ledger."""
        slot = self.commits.slot(offset)
        flow.ledger.take(slot)
        return Inbound(
            kind=kind,
            key=b"k",
            value=value,
            size_bytes=len(value or b""),
            headers=tuple(headers),
            slot=slot,
        )

    def batch(self, flow: Flow, *texts: str, **fields: Any) -> list[Inbound]:
        """Prompts in JSON at offsets 0, 1, 2, ..."""
        return [
            self.inbound(flow, offset, json_value(text, message_id=f"m-{offset}", **fields))
            for offset, text in enumerate(texts)
        ]

    def fetched(
        self, *values: bytes | None, first: int = 0, generation: int = 1,
        headers: Sequence[tuple[str, bytes]] | None = JSON_HEADERS,
    ) -> FakeFetched:  # fmt: skip
        """One fetch's records of the prompts topic, from offset `first` on."""
        records = [
            FakeRecord(
                topic="prompts", partition=0, offset=offset, key=b"k", value=value,
                timestamp=int(NOON.timestamp() * 1000), headers=headers,
            )
            for offset, value in enumerate(values, start=first)
        ]  # fmt: skip
        return FakeFetched(self.commits, generation, records)

    def verdicts(self) -> list[Any]:
        """Every published verdict, decoded."""
        return [
            codec.decode_verdict(record.value or b"", self.schemas)
            for record in self.publisher.to(TOPICS.verdicts)
        ]
