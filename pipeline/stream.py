"""One message's life: take, decode, classify, conclude, publish, acknowledge.

Read from top to bottom. The agents take raw bytes without acknowledging
them; the conveyor groups what was taken into batches, and `Flow.judge` ends
each batch: every message is settled by outcomes the broker acknowledged, or
the worker stops and Kafka delivers it again. At least once; a verdict's id
is its input's position, so repeats are harmless.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Container, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any, Protocol

import faust
import structlog
from msgspec import Struct

from pipeline import codec, headers, metrics, moderation, tally, telemetry
from pipeline.conveyor import Conveyor, Limits
from pipeline.dead_letters import Bound, Budget, fitting
from pipeline.errors import Reason, Rejected, Retryable, Suspected
from pipeline.events import (
    DeadLetter,
    Judgement,
    Kind,
    Message,
    Outcome,
    Position,
    Received,
)
from pipeline.health import Health
from pipeline.ledger import Ledger, Origin, Slot
from pipeline.moderation import Case, Intake, Stamp
from pipeline.policy import OnUnavailable, Policy
from pipeline.ports import AuditLog, Clock, Outgoing, Publisher, SchemaRegistry
from pipeline.retrying import until_done
from pipeline.scoring import LONG_CHARS, Scored
from pipeline.sealing import NoKeys, Sealer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The names of the topics that a message passes."""

    prompts: str
    completions: str
    verdicts: str
    audit: str
    dead_letters: str

    @property
    def inputs(self) -> dict[Kind, str]:
        """The topic of each kind of input."""
        return {Kind.PROMPT: self.prompts, Kind.COMPLETION: self.completions}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLimits:
    """Every bound the flow keeps; sizes in bytes, times in seconds.

    `poison_attempts`: failures on a message while the guard answers others,
    before it is tried alone.
    """

    conveyor: Limits
    intake: Intake
    dead_letters: Bound
    drain_s: float
    max_value_bytes: int
    max_dead_letter_bytes: int
    poison_attempts: int = 5


class Inbound(Struct, frozen=True, kw_only=True):
    """A message as taken from Kafka: raw, with the slot that holds its commit.

    `size_bytes` is its value's.
    """

    kind: Kind
    key: bytes | None
    value: bytes | None
    size_bytes: int
    headers: headers.Headers
    slot: Slot

    @property
    def position(self) -> Position:
        """Where it lies in Kafka."""
        return self.slot.position


class Admitted(Struct, frozen=True, kw_only=True):
    """A message that decoded and may be judged."""

    inbound: Inbound
    case: Case

    @property
    def position(self) -> Position:
        """Where it lies in Kafka."""
        return self.inbound.position

    @property
    def chars(self) -> int:
        """Length of its text in characters: what its guard calls will roughly cost."""
        return len(self.case.received.message.text)


Refused = tuple[Inbound, Rejected]
Recalled = tuple[Admitted, tuple[Judgement, ...]]


class Fetched(Origin, Protocol):
    """Records of one partition as a fetch returned them; raw, offsets ascending."""

    @property
    def generation(self) -> int:
        """The assignment that they were fetched under."""

    @property
    def records(self) -> Sequence[Any]:
        """Kafka's records: topic, partition, offset, timestamp (ms), key, value, headers."""

    def track(self) -> None:
        """Let a rebalance wait until each is acknowledged or let go."""


class Scores(Protocol):
    """The slice of a scorer the flow needs."""

    def recall(self, messages: Sequence[Message]) -> list[tuple[Judgement, ...] | None]:
        """What is known of each message without asking a guard, in order."""

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """One result per message, in order; raises nothing but Misconfigured."""

    async def score_alone(self, message: Message) -> Scored:
        """The result with nothing else in flight; Rejected if the guard fails on it alone."""


def add_agents(app: faust.App, topics: Topics, flow: Flow) -> None:
    """Let an agent on each input topic hand what it takes to the flow."""

    def agent_on(kind: Kind, topic: str) -> None:
        @app.agent(_raw(app, topic), name=f"moderate-{kind.value}s")  # type: ignore[untyped-decorator]
        async def moderate(stream: Any) -> None:
            """Hand over what was fetched; never acknowledges, never raises (pipeline/DESIGN.md)."""
            # The channel, not the stream: it holds what the lean consumer put there, and
            # nothing acknowledges behind our back.
            async for fetched in stream.channel:
                await flow.take(kind, fetched, current=app.consumer_generation_id)

    for kind, topic in topics.inputs.items():
        agent_on(kind, topic)


def _raw(app: faust.App, topic: str) -> Any:
    """A topic of bytes: Faust must not deserialise, a bad value would stop the agent."""
    return app.topic(
        topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )


class Flow:
    """From a taken message to acknowledged outcomes.

    `policy` is asked at each message: the one in force may change meanwhile. `quick` says
    whether the guards are, at the moment: then batches may be larger.
    """

    def __init__(
        self,
        *,
        topics: Topics,
        schemas: codec.Schemas,
        registry: SchemaRegistry | None,
        policy: Callable[[], Policy],
        scorer: Scores,
        publisher: Publisher,
        audit: AuditLog,
        health: Health,
        clock: Clock,
        limits: FlowLimits,
        worker_id: str,
        crash: Callable[[BaseException], None],
        sealer: Sealer | None = None,
        quick: Callable[[], bool] = lambda: False,
    ) -> None:
        self.topics = topics
        self._schemas = schemas
        self._registry = registry
        self._policy = policy
        self._scorer = scorer
        self._publisher = publisher
        self._audit = audit
        self._sealer = sealer or NoKeys()
        self._health = health
        self._clock = clock
        self._limits = limits
        self._patience = limits.poison_attempts
        self._worker_id = worker_id
        self._source = f"sluice/{worker_id}"
        self._crash = crash
        self._budget = Budget(limits.dead_letters)
        self.ledger = Ledger()
        self.conveyor: Conveyor[Inbound] = Conveyor(
            self.judge,
            limits=limits.conveyor,
            abandon=lambda inbound: inbound.slot.forget(),
            crash=crash,
            quick=quick,
        )

    # 1. Take ---------------------------------------------------------------

    async def take(self, kind: Kind, fetched: Fetched, *, current: int) -> None:
        """Enter fetched messages; waits while the conveyor is full. Never raises."""
        try:
            if self.conveyor.draining or fetched.generation != current:
                return  # another assignment's, and not tracked: Kafka delivers it again
            fetched.track()
            inbounds = self._inbounds(kind, fetched)
            for inbound in inbounds:
                self.ledger.take(inbound.slot)
            metrics.IN_FLIGHT.set(len(self.ledger))
            await self.conveyor.admit(inbounds)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # an exception that left an agent would lose messages
            self._crash(error)

    def _inbounds(self, kind: Kind, fetched: Fetched) -> list[Inbound]:
        now_s = self._clock.monotonic()
        return [
            Inbound(
                kind=kind,
                key=record.key,
                value=record.value,
                size_bytes=len(record.value or b""),
                headers=tuple(record.headers or ()),
                slot=Slot(
                    position=Position(
                        topic=record.topic, partition=record.partition, offset=record.offset
                    ),
                    generation=fetched.generation,
                    taken_at_s=now_s,
                    timestamp_ms=record.timestamp if (record.timestamp or 0) > 0 else None,
                    origin=fetched,
                ),
            )
            for record in fetched.records
        ]

    # 2. Judge a batch --------------------------------------------------------

    async def judge(self, batch: Sequence[Inbound]) -> None:
        """End every message of a batch, or raise with none of the rest acknowledged."""
        self._observe(batch)
        with telemetry.batch_span([inbound.headers for inbound in batch]):
            oks, errs = await self.decode(batch)
            self._budget.spend(good=len(oks), dead=len(errs))
            await self.bury(errs)
            known, unknown = self._recalled(oks)
            groups = (self.classify(group) for group in _by_length(unknown))
            await _all((self.settle_known(known), *groups))

    # 3. Decode ---------------------------------------------------------------

    async def decode(self, batch: Sequence[Inbound]) -> tuple[list[Admitted], list[Refused]]:
        """The messages that may be judged, and those that never can be."""
        await self._learn_schemas(batch)
        now = self._clock.now()
        oks: list[Admitted] = []
        errs: list[Refused] = []
        for inbound in batch:
            try:
                oks.append(self._admit(inbound, now))
            except Rejected as error:
                errs.append((inbound, error))
        return oks, errs

    def _admit(self, inbound: Inbound, now: datetime) -> Admitted:
        received = Received(
            message=self._message(inbound),
            position=inbound.position,
            received_at=now,
            headers=headers.trace_of(inbound.headers),
        )
        case = moderation.admit(received, self._policy(), self._limits.intake)
        return Admitted(inbound=inbound, case=case)

    def _message(self, inbound: Inbound) -> Message:
        value = inbound.value
        if value is None:
            raise Rejected(Reason.NULL_VALUE, "the value is null", remedy="Publish a value")
        if len(value) > self._limits.max_value_bytes:
            raise Rejected(
                Reason.OVERSIZE,
                f"the value has {len(value):,} bytes, the limit is"
                f" {self._limits.max_value_bytes:,}",
                remedy="Publish it in parts, or raise limits.max_text_bytes",
            )
        if inbound.headers and headers.is_json(inbound.headers):
            return codec.decode_json(value, inbound.kind)
        return codec.decode_avro(value, inbound.kind, self._schemas)

    async def _learn_schemas(self, batch: Sequence[Inbound]) -> None:
        """Ask the registry, if there is one, for writer schemas not seen before."""
        if self._registry is None:
            return
        for schema_id in _unknown_ids(batch, self._schemas):
            text = await until_done(partial(self._registry.schema, schema_id), wait_max_s=2.0)
            if text is not None:
                self._learn(schema_id, text)

    def _learn(self, schema_id: int, text: str) -> None:
        try:
            self._schemas.learn(schema_id, text)
        except ValueError as error:
            log.error("schema-refused", schema_id=schema_id, error=str(error))

    # 4. Classify, and what happens when the guard is away ---------------------

    def _recalled(self, admitted: Sequence[Admitted]) -> tuple[list[Recalled], list[Admitted]]:
        """Those whose content was scored before, which wait for nobody; and the rest."""
        found = self._scorer.recall([each.case.received.message for each in admitted])
        known: list[Recalled] = []
        unknown: list[Admitted] = []
        for each, judgements in zip(admitted, found, strict=True):
            if judgements is None:
                unknown.append(each)
            else:
                known.append((each, judgements))
        return known, unknown

    async def settle_known(self, recalled: Sequence[Recalled]) -> None:
        """Settle messages by judgements of the same content."""
        if recalled:
            stamp = self._stamp(1, self._clock.now())
            await self.publish([self._concluded(*each, stamp) for each in recalled])

    def _concluded(
        self, each: Admitted, judgements: Sequence[Judgement], stamp: Stamp
    ) -> tuple[Inbound, Outcome]:
        return each.inbound, moderation.conclude(each.case, judgements, stamp, self._sealer)

    async def classify(self, waiting: list[Admitted]) -> None:
        """Score and settle every message; hold or degrade while guards do not answer."""
        began_s = self._clock.monotonic()
        failures: Counter[Position] = Counter()
        for attempt in count(1):
            if not waiting:
                return
            scored = await self._ask(waiting, failures)
            cause = await self._settle_scored(waiting, scored, attempt)
            if cause is None:
                return
            waiting = [e for e, r in zip(waiting, scored, strict=True) if isinstance(r, Retryable)]
            waiting = await self._settle_overdue(waiting, cause, began_s, attempt)
            await asyncio.sleep(_pause_s(attempt) if waiting else 0)

    async def _ask(self, waiting: Sequence[Admitted], failures: Counter[Position]) -> list[Scored]:
        """Score together, and alone what the guard failed on too often; count failures."""
        suspects = {position for position, times in failures.items() if times >= self._patience}
        asked = [e for e in waiting if e.position not in suspects] if suspects else waiting
        together = await self._scorer.score([each.case.received.message for each in asked])
        scored = await self._with_suspects(waiting, suspects, together) if suspects else together
        results = zip(waiting, scored, strict=True)
        failures.update([each.position for each, one in results if isinstance(one, Suspected)])
        return scored

    async def _with_suspects(
        self, waiting: Sequence[Admitted], suspects: Container[Position], together: Iterable[Scored]
    ) -> list[Scored]:
        """All results in order: those scored together, and each suspect's, scored alone."""
        others = iter(together)
        scored: list[Scored] = []
        away: Retryable | None = None
        for each in waiting:
            if each.position in suspects:
                result = away or await self._scorer.score_alone(each.case.received.message)
                away = result if isinstance(result, Retryable) else None
            else:
                result = next(others)
            scored.append(result)
        return scored

    async def _settle_scored(
        self, asked: Sequence[Admitted], scored: Sequence[Scored], attempt: int
    ) -> Retryable | None:
        """Settle what has a result; returns why something has none yet."""
        stamp = self._stamp(attempt, self._clock.now())
        outcomes: list[tuple[Inbound, Outcome]] = []
        refused: list[Refused] = []
        cause = _cause(scored)
        for each, result in zip(asked, scored, strict=True):
            if isinstance(result, Rejected):
                refused.append((each.inbound, result))
            elif not isinstance(result, Retryable):
                outcomes.append(self._concluded(each, result, stamp))
        away = not (cause is None or isinstance(cause, Suspected))
        self._health.set("guard", ok=not away, detail=str(cause or "answers"))
        self._budget.revise(dead=len(refused))
        await self.bury(refused)
        await self.publish(outcomes)
        return cause

    async def _settle_overdue(
        self, waiting: list[Admitted], cause: Retryable, began_s: float, attempt: int
    ) -> list[Admitted]:
        """Settle as `unscanned` what its policy will not hold longer; return the rest."""
        waited_s = self._clock.monotonic() - began_s
        overdue = [each for each in waiting if _overdue(each.case, waited_s)]
        stamp = self._stamp(attempt)
        await self.publish(
            [
                (e.inbound, moderation.unscanned(e.case, cause.message, stamp, self._sealer))
                for e in overdue
            ]
        )
        return [each for each in waiting if each not in overdue]

    # 5. Conclude: `moderation`, pure; a batch shares its stamp -------------------

    def _stamp(self, attempt: int, scored_at: datetime | None = None) -> Stamp:
        return Stamp(
            worker_id=self._worker_id,
            now=self._clock.now(),
            attempt=attempt,
            scored_at=scored_at,
        )

    # 6. Publish, then acknowledge --------------------------------------------

    async def publish(self, outcomes: Sequence[tuple[Inbound, Outcome]]) -> None:
        """Publish verdicts and audit events; once acknowledged, settle their messages."""
        if not outcomes:
            return
        records = [self._records(outcome) for _, outcome in outcomes]
        # Each is tried again by itself: a failure of one must not publish the other twice.
        await _all(
            (
                self._deliver([verdict for verdict, _ in records]),
                self._audit.write([event for _, event in records]),
            )
        )
        self._count(outcomes)
        self._settle([inbound for inbound, _ in outcomes])

    async def bury(self, refused: Sequence[Refused]) -> None:
        """Publish dead letters; once acknowledged, settle their messages."""
        if not refused:
            return
        await self._deliver([self._dead_letter(inbound, error) for inbound, error in refused])
        for inbound, error in refused:
            metrics.DEAD_LETTERS.labels(error.reason.value).inc()
            metrics.MESSAGES.labels(inbound.position.topic, "dead-letter").inc()
            log.warning("dead-letter", position=str(inbound.position), reason=error.reason.value)
        self._settle([inbound for inbound, _ in refused])

    async def _deliver(self, records: Sequence[Outgoing]) -> None:
        """Publish until the broker acknowledges: there is nowhere else to put an outcome."""
        began_s = self._clock.monotonic()
        await until_done(partial(self._publisher.publish, records), wait_max_s=5.0)
        metrics.STAGE_SECONDS.labels("publish").observe(self._clock.monotonic() - began_s)

    def _settle(self, inbounds: Iterable[Inbound]) -> None:
        for inbound in inbounds:
            self.ledger.settle(inbound.slot)
        metrics.IN_FLIGHT.set(len(self.ledger))

    def _records(self, outcome: Outcome) -> tuple[Outgoing, Outgoing]:
        """The verdict's record, and the audit event's up to its link."""
        verdict, audit = codec.encode_outcome(outcome, self._schemas)
        key = outcome.verdict.message_id.encode()
        return (
            Outgoing(
                topic=self.topics.verdicts,
                key=key,
                value=verdict,
                headers=self._stamped(outcome, "moderation.verdict.v1"),
            ),
            Outgoing(
                topic=self.topics.audit,
                key=key,
                value=audit,
                headers=self._stamped(outcome, "moderation.audit.v1"),
            ),
        )

    def _stamped(self, outcome: Outcome, type: str) -> headers.Headers:
        verdict = outcome.verdict
        return headers.event(
            id=verdict.verdict_id,
            type=type,
            source=self._source,
            time=verdict.emitted_at,
            trace=outcome.headers,
        )

    def _dead_letter(self, inbound: Inbound, error: Rejected) -> Outgoing:
        letter = DeadLetter(
            position=inbound.position,
            key=inbound.key,
            value=inbound.value,
            headers=inbound.headers,
            reason=error.reason.value,
            detail=str(error),
            failed_at=self._clock.now(),
            attempts=headers.attempts(inbound.headers) + 1,
            kafka_timestamp_ms=inbound.slot.timestamp_ms,
        )
        kept = fitting(letter, self._limits.max_dead_letter_bytes)
        return Outgoing(
            topic=self.topics.dead_letters,
            key=kept.key,
            value=kept.value,
            headers=headers.provenance(kept),
        )

    # Drain: a rebalance or a shutdown takes the partitions away ---------------

    async def drain(self) -> None:
        """End what is in flight within the deadline; let go of the rest for redelivery."""
        await self.conveyor.drain(self._limits.drain_s)
        abandoned = self.ledger.give_up()
        for slot in abandoned:
            slot.forget()
        metrics.IN_FLIGHT.set(0)
        if abandoned:
            log.info("drained", redelivered=len(abandoned))

    def resume(self) -> None:
        """Take messages again, after an assignment."""
        self.conveyor.resume()

    # Measures ----------------------------------------------------------------

    def _observe(self, batch: Sequence[Inbound]) -> None:
        metrics.BATCH_MESSAGES.observe(len(batch))
        metrics.BATCH_BYTES.observe(sum(inbound.size_bytes for inbound in batch))
        oldest_s = min(inbound.slot.taken_at_s for inbound in batch)
        metrics.STAGE_SECONDS.labels("wait").observe(self._clock.monotonic() - oldest_s)

    def _count(self, outcomes: Sequence[tuple[Inbound, Outcome]]) -> None:
        ended = [(outcome.verdict, inbound.slot.timestamp_ms) for inbound, outcome in outcomes]
        tally.count(ended, self._clock.now().timestamp())


def _by_length(admitted: Sequence[Admitted]) -> list[list[Admitted]]:
    """Short and long texts apart: a short one's verdict does not wait for a long one's."""
    short: list[Admitted] = []
    long: list[Admitted] = []
    for each in admitted:
        (short if each.chars <= LONG_CHARS else long).append(each)
    return [group for group in (short, long) if group]


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run to the end side by side; then raise the first error, if there was one."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _unknown_ids(batch: Sequence[Inbound], schemas: codec.Schemas) -> set[int]:
    found = set()
    for inbound in batch:
        try:
            found.add(codec.frame_id(inbound.value or b""))
        except Rejected:
            continue  # not a frame; decoding says so
    return found - set(schemas.by_id)


def _cause(scored: Sequence[Scored]) -> Retryable | None:
    """Why a message has no result yet; that the guard is away comes first."""
    causes = [result for result in scored if isinstance(result, Retryable)]
    return min(causes, key=lambda cause: isinstance(cause, Suspected), default=None)


def _overdue(case: Case, waited_s: float) -> bool:
    rules = case.rules
    return rules.on_unavailable is OnUnavailable.DEGRADE and waited_s >= rules.degrade_after_s


def _pause_s(attempt: int) -> float:
    """Exponential pause before the next attempt: 0.1 s up to 2 s."""
    return float(min(2.0, 0.1 * 2 ** min(attempt - 1, 8)))
