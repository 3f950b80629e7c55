"""The composition root: settings in, running parts out, all closed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import codec, faust_app, metrics, policy_file, worker
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.kafka import KafkaPublisher, missing_topics
from pipeline.adapters.registry import Registry
from pipeline.adapters.triton import TritonClassifier
from pipeline.conveyor import Limits
from pipeline.dead_letters import Bound
from pipeline.errors import Misconfigured
from pipeline.guards import cards
from pipeline.health import Health, HealthServer
from pipeline.moderation import Intake
from pipeline.policy import Policy
from pipeline.resources import shipped
from pipeline.scoring import CallLimits, Guard, Scorer, uncovered_kinds
from pipeline.selftest import VerifiedScorer
from pipeline.settings import GuardSettings, Settings
from pipeline.stream import Flow, FlowLimits, Topics, add_agents
from pipeline.tokenization import Tokenizer

_CHECKS = ("guard", "partitions")


async def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM, SIGINT or an error it cannot go on from."""
    guards, policy, schemas = load_guards(settings.guards), load_policy(settings), load_schemas()
    check_policy(policy, guards)
    await _require_topics(settings)
    health, clock, stop = Health(_CHECKS), SystemClock(), worker.Stop()
    server = HealthServer(health, host=settings.worker.http_host, port=settings.worker.http_port)
    with server, TemporaryDirectory(prefix="sluice-") as scratch:
        async with (
            TritonClassifier(settings.triton) as triton,
            KafkaPublisher(
                settings.kafka, max_message_bytes=settings.topics.max_message_bytes
            ) as publisher,
        ):
            scorer = VerifiedScorer(_scorer(guards, triton, settings, clock), triton, health)
            flow = Flow(
                topics=topics(settings),
                schemas=schemas,
                registry=Registry(settings.registry) if settings.registry.url else None,
                policy=policy,
                scorer=scorer,
                publisher=publisher,
                health=health,
                clock=clock,
                limits=flow_limits(settings),
                worker_id=settings.worker.id,
                crash=stop.crash,
            )
            app = faust_app.create(settings.kafka, data=Path(scratch), health=health)
            app.flow = flow
            add_agents(app, flow.topics, flow)
            _announce(policy, guards)
            await worker.run(
                app,
                flow,
                scorer,
                health=health,
                clock=clock,
                stop=stop,
                drain_s=settings.worker.drain_s,
            )


@asynccontextmanager
async def open_scorer(settings: Settings) -> AsyncIterator[Scorer]:
    """A scorer over the configured Triton, for one-off use."""
    guards = load_guards(settings.guards)
    async with TritonClassifier(settings.triton) as triton:
        yield _scorer(guards, triton, settings, SystemClock())


def load_guards(settings: GuardSettings) -> list[Guard]:
    """The configured guards; raises Misconfigured naming card, key and remedy."""
    found = []
    for name in settings.names:
        card = cards.load(settings.repository / name)
        if card.name != name:
            raise Misconfigured(
                f"the card in folder {name!r} names guard {card.name!r}",
                remedy="Give folder and card the same name",
            )
        found.append(Guard(card=card, tokenizer=Tokenizer(card.tokenizer)))
    if missing := uncovered_kinds(found):
        raise Misconfigured(
            f"no configured guard judges {', '.join(sorted(missing))} messages",
            remedy="Add a guard with that role to guards.names",
        )
    return found


def load_policy(settings: Settings) -> Policy:
    """The configured policy; raises Misconfigured naming file, key and remedy."""
    path = settings.policy.file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"policy {path} cannot be read ({type(error).__name__})", remedy="Correct policy.file"
        ) from error
    return policy_file.parse(text, name=str(path))


def check_policy(policy: Policy, guards: list[Guard]) -> None:
    """Raise Misconfigured when the policy waits for a score that no guard gives."""
    given = {label for guard in guards for label in guard.card.labels}
    if missing := sorted(policy.categories() - given):
        raise Misconfigured(
            f"policy {policy.ref.id} has a threshold for {missing[0]!r}, which no guard scores",
            remedy="Remove it, or add a guard that does to guards.names",
        )


def load_schemas() -> codec.Schemas:
    """The committed schemas."""
    return codec.load_schemas(shipped("schemas"))


def topics(settings: Settings) -> Topics:
    """The topics' names, as the flow needs them."""
    named = settings.topics
    return Topics(
        prompts=named.prompts,
        completions=named.completions,
        verdicts=named.verdicts,
        audit=named.audit,
        dead_letters=named.dead_letters,
    )


def flow_limits(settings: Settings) -> FlowLimits:
    """The flow's bounds; a value may hold a text, a prompt and some room for the rest."""
    limits, batch = settings.limits, settings.worker
    return FlowLimits(
        conveyor=Limits(
            batch_messages=batch.batch_messages,
            batch_bytes=batch.batch_bytes,
            batches_in_flight=batch.batches_in_flight,
            buffer_messages=batch.buffer_messages,
            linger_s=batch.linger_ms / 1000,
        ),
        intake=Intake(max_text_bytes=limits.max_text_bytes, max_future_s=limits.max_future_s),
        dead_letters=Bound(
            window=limits.dead_letter_window,
            count=limits.dead_letter_count,
            ratio=limits.dead_letter_ratio,
        ),
        drain_s=batch.drain_s,
        poison_attempts=batch.poison_attempts,
        # JSON may escape every character of both texts as six bytes.
        max_value_bytes=limits.max_text_bytes * 12 + 64 * 1024,
    )


def _scorer(
    guards: list[Guard], triton: TritonClassifier, settings: Settings, clock: SystemClock
) -> Scorer:
    bounds = settings.guards
    limits = CallLimits(
        max_rows=bounds.max_rows,
        max_tokens=bounds.max_tokens,
        max_windows=bounds.max_windows,
        in_flight=bounds.calls_in_flight,
    )
    return Scorer(guards, triton, limits, clock)


async def _require_topics(settings: Settings) -> None:
    missing = await missing_topics(settings.kafka, settings.topics)
    if missing:
        raise Misconfigured(
            f"there is no topic {missing[0]!r} at {settings.kafka.bootstrap_servers}",
            remedy="Run `sluice topics create`",
        )


def _announce(policy: Policy, guards: list[Guard]) -> None:
    ref = policy.ref
    metrics.POLICY.info({"id": ref.id, "version": ref.version, "digest": ref.digest})
    for guard in guards:
        card = guard.card
        metrics.GUARD.labels(card.name, card.version, card.digest).set(1)


def run(coroutine: object) -> None:
    """Run a coroutine on uvloop where there is one (it takes 15 % off Faust's cost)."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(coroutine)  # type: ignore[arg-type]
    else:
        uvloop.run(coroutine)  # type: ignore[arg-type]
