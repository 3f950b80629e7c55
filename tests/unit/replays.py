"""Audit events as the worker writes them, a reader of them, and short ways to replay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from pipeline import audit_log, codec
from pipeline.adapters.kafka import Record, Slice
from pipeline.audit_log import Entry
from pipeline.events import AuditEvent, Coverage, GuardRef, Judgement, Kind, Position
from pipeline.moderation import Intake, Stamp, admit, conclude, unscanned
from pipeline.policy import Policy
from pipeline.policy_file import parse
from pipeline.replay.depths import Depth, Recorded
from pipeline.replay.folder import Folder
from pipeline.replay.plan import Plan, Request, Scores
from pipeline.replay.policies import OneForAll
from pipeline.replay.run import Emit, Run, begun, resumed
from pipeline.resources import packaged
from pipeline.selection import Selection
from tests.unit.fakes import NOON, received

LOOSE = """
id = "loose"
version = "1"
[default]
retention = "plain"
[default.prompt]
unsafe = { flag = 0.7, block = 0.95 }
S4 = { review = 0.5 }
[default.completion]
unsafe = { block = 0.9 }
"""
STRICT = LOOSE.replace("loose", "strict").replace("flag = 0.7, block = 0.95", "review = 0.3")


def policy(text: str = LOOSE) -> Policy:
    """A policy from its text."""
    return parse(text, name="test")


def shipped() -> Policy:
    """The policy that ships."""
    return policy(packaged("policies", "default.toml").read_text())


def judgement(**scores: float) -> Judgement:
    """What a guard said."""
    return Judgement(
        guard=GuardRef(name="tiny", version="1", digest="sha256:" + "a" * 64),
        scores={"unsafe": 0.0, "S4": 0.0, "injection": 0.0, "jailbreak": 0.0} | scores,
        coverage=Coverage(scanned_tokens=4, total_tokens=4),
        template_digest="t", windows=1, batch_rows=1, queued_s=0.0, inference_s=0.01,
    )  # fmt: skip


def event(
    offset: int = 0, *, by: Policy | None = None, partition: int = 0,
    coverage: Coverage | None = None, text: str = "fine", judged: Judgement | None = None,
    message: dict[str, Any] | None = None, **scores: float,
) -> AuditEvent:  # fmt: skip
    """The audit event that the worker writes about a message with these scores."""
    case = _case(offset, by or policy(), partition, text, message or {})
    found = judged or judgement(**scores)
    if coverage is not None:
        found = replace(found, coverage=coverage)
    return conclude(case, [found], Stamp(worker_id="w", now=NOON, scored_at=NOON)).audit


def unscanned_event(offset: int = 0, *, by: Policy | None = None) -> AuditEvent:
    """The audit event about a message that no guard judged."""
    case = _case(offset, by or policy(), 0, "fine", {})
    return unscanned(case, "the guard is away", Stamp(worker_id="w", now=NOON)).audit


def _case(offset: int, by: Policy, partition: int, text: str, message: dict[str, Any]) -> Any:
    taken = received(offset, text, **{"message_id": f"m-{offset}", "kind": Kind.PROMPT} | message)
    at = Position(topic="prompts", partition=partition, offset=offset)
    intake = Intake(max_text_bytes=10_000, max_future_s=1e9)
    return admit(replace(taken, position=at), by, intake)


def entry(given: AuditEvent, offset: int = 0) -> Entry:
    """The event at an offset of the audit topic."""
    at = Position(topic="audit", partition=0, offset=offset)
    return Entry(at=at, timestamp_ms=1_000 + offset, frame=b"", event=given)


class MemoryReader:
    """Frames of one partition, read as from Kafka; None is a foreign record."""

    def __init__(self, events: Iterable[AuditEvent | None], schemas: codec.Schemas) -> None:
        self.frames = [b"junk" if e is None else codec.encode_audit(e, schemas) for e in events]

    async def read(self, topic: str, slices: Sequence[Slice]) -> AsyncIterator[Record]:
        """The records between the offsets."""
        for part in slices:
            for offset in range(part.start, min(part.end, len(self.frames))):
                yield Record(
                    topic=topic, partition=part.partition, offset=offset,
                    timestamp_ms=1_000 + offset, key=None, value=self.frames[offset], headers=(),
                )  # fmt: skip


def request(**changed: Any) -> Request:
    """A request for everything, with whatever the test cares about changed."""
    plain: dict[str, Any] = {
        "topic": "audit", "policy": "p", "scores": Scores.RECORDED, "guards": (), "start": "start",
        "end": "end", "offsets": (), "selection": {}, "margin": 0.02, "tolerance": 1e-4,
        "show_text": False, "emit": "",
    }  # fmt: skip
    return Request(**plain | changed)


def run(
    records: int, depth: Depth | None = None, *, folder: Folder | None = None,
    selection: Selection | None = None, emit: Emit | None = None, **changed: Any,
) -> Run:  # fmt: skip
    """A replay of the first `records` offsets, begun or resumed, not yet gone."""
    asked = request(**changed)
    found = folder.checkpoint if folder else None
    state = resumed(asked, found) if found else begun(asked)
    if folder is not None:
        folder.open_flips()
    return Run(
        Plan(request=asked, slices=(Slice(partition=0, start=0, end=records),)),
        state,
        selection=selection or Selection(),
        depth=depth or Recorded(OneForAll(policy(STRICT))),
        folder=folder,
        emit=emit,
    )


async def go(made: Run, reader: MemoryReader, schemas: codec.Schemas) -> Run:
    """Let it go over what it has left."""
    passed = made.state.passed
    found: Any = reader
    await made.go(audit_log.read(found, "audit", made.left(), schemas, Selection(), passed=passed))
    return made
