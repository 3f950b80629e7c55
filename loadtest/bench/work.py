"""What every peer does with a message, through the worker's own functions.

The peers differ in how messages come and outcomes go; decoding, planning,
the guard call, the policy and encoding are these for all that are asyncio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from pipeline import codec, headers, moderation, wiring
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.triton import TritonClassifier
from pipeline.errors import Rejected, Retryable
from pipeline.events import Judgement, Kind, Outcome, Position, Received
from pipeline.moderation import Case, Intake, Stamp
from pipeline.policy import Policy
from pipeline.ports import Outgoing
from pipeline.scoring import Scorer
from pipeline.settings import Settings


class Desk:
    """Admits, concludes and encodes; everything but the guard call."""

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.topics
        self._policy: Policy = wiring.load_policy(settings)
        self._schemas = wiring.load_schemas()
        self._clock = SystemClock()
        self._worker_id = settings.worker.id
        self._intake = Intake(
            max_text_bytes=settings.limits.max_text_bytes,
            max_future_s=settings.limits.max_future_s,
        )

    def admit(self, value: bytes, position: Position, given: headers.Headers = ()) -> Case:
        """Decode a prompt and let it in; raises Rejected."""
        received = Received(
            message=codec.decode_avro(value, Kind.PROMPT, self._schemas),
            position=position,
            received_at=self._clock.now(),
            headers=headers.trace_of(given),
        )
        return moderation.admit(received, self._policy, self._intake)

    def outcome(self, case: Case, judgements: Sequence[Judgement]) -> tuple[Outgoing, Outgoing]:
        """The records of the verdict and of the audit event."""
        now = self._clock.now()
        stamp = Stamp(worker_id=self._worker_id, now=now, attempt=1, scored_at=now)
        concluded = moderation.conclude(case, judgements, stamp)
        verdict, unlinked = codec.encode_outcome(concluded, self._schemas)
        audit = codec.linked(unlinked, None)
        return (
            self._record(concluded, self._topics.verdicts, "moderation.verdict.v1", verdict),
            self._record(concluded, self._topics.audit, "moderation.audit.v1", audit),
        )

    def _record(self, outcome: Outcome, topic: str, type: str, value: bytes) -> Outgoing:
        verdict = outcome.verdict
        stamped = headers.event(
            id=verdict.verdict_id,
            type=type,
            source=f"sluice/{self._worker_id}",
            time=verdict.emitted_at,
            trace=outcome.headers,
        )
        return Outgoing(topic=topic, key=verdict.message_id.encode(), value=value, headers=stamped)


class Work:
    """A desk with a guard: whole batches in, records out."""

    def __init__(self, settings: Settings, scorer: Scorer) -> None:
        self.desk = Desk(settings)
        self._scorer = scorer

    async def judge(self, cases: Sequence[Case]) -> Iterable[tuple[Outgoing, Outgoing]]:
        """Both records of each case, in order; raises what the guard call raised."""
        scored = await self._scorer.score([case.received.message for case in cases])
        made = []
        for case, result in zip(cases, scored, strict=True):
            if isinstance(result, Rejected | Retryable):
                raise result
            made.append(self.desk.outcome(case, result))
        return made


@asynccontextmanager
async def open_work(settings: Settings) -> AsyncIterator[Work]:
    """The work over the configured Triton."""
    guards = wiring.load_guards(settings.guards)
    async with TritonClassifier(settings.triton) as triton:
        yield Work(settings, wiring.scorer(guards, triton, settings, SystemClock()))
