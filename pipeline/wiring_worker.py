"""The worker, put together: settings in, running parts out, all closed again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from pipeline import (
    cascade,
    checkpoints,
    codec,
    faust_app,
    metrics,
    outputs,
    schema_ids,
    wiring,
    worker,
)
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader
from pipeline.adapters.kafka_topics import missing_topics
from pipeline.adapters.registry import Registry
from pipeline.adapters.triton import TritonClassifier
from pipeline.audit_writer import ChainedLog
from pipeline.cached_scoring import CachedScorer
from pipeline.checkpoints import Checkpoints
from pipeline.conveyor import Limits
from pipeline.dead_letters import Bound, require_below
from pipeline.errors import Misconfigured
from pipeline.health import Health, HealthServer
from pipeline.key_watch import CHECK as KEYS
from pipeline.key_watch import KeyWatch
from pipeline.moderation import Intake
from pipeline.policy import Policy
from pipeline.policy_feed import PolicyFeed
from pipeline.ports import Clock
from pipeline.score_cache import ScoreCache
from pipeline.scoring import Guard, Scorer
from pipeline.sealing import NoKeys, Sealer
from pipeline.selftest import VerifiedScorer
from pipeline.settings import Settings
from pipeline.signing import Signer
from pipeline.stream import Flow, FlowLimits, Scores, Topics, add_agents

log = structlog.get_logger(__name__)

_CHECKS = ("guard", "partitions", "policy", checkpoints.CHECK, outputs.CHECK, KEYS)
_HEADS_CLOSED_WITHIN_S: Final = 3.0


async def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM, SIGINT or an error it cannot go on from."""
    guards, policy, schemas = (
        wiring.load_guards(settings.guards),
        wiring.load_policy(settings),
        wiring.load_schemas(),
    )
    wiring.check_policy(policy, guards)
    key = settings.audit.signing_key_file
    signer = Signer.load(key) if key else None
    await schema_ids.adopt(schemas, settings)
    await _require_topics(settings)
    await _require_few_dead_letters(settings)
    health, clock, stop = Health(_CHECKS), SystemClock(), worker.Stop()
    sealer, expect_keys = open_sealer(settings, policy, health, clock)
    server = HealthServer(health, host=settings.worker.http_host, port=settings.worker.http_port)
    with server, TemporaryDirectory(prefix="sluice-") as scratch:
        async with (
            TritonClassifier(settings.triton) as triton,
            KafkaPublisher(
                settings.kafka, max_message_bytes=settings.topics.max_message_bytes
            ) as publisher,
            _chained(
                settings, publisher, schemas=schemas, signer=signer, health=health, clock=clock
            ) as (audit, heads),
        ):
            asked = wiring.scorer(guards, triton, settings, clock)
            verified = VerifiedScorer(asked, triton, health)
            feed = PolicyFeed(
                settings.kafka,
                settings.topics.policies,
                own=policy,
                check=lambda one: wiring.check_servable(one, guards, settings),
                schemas=schemas,
                health=health,
                follow=settings.policy.follow,
                on_switch=expect_keys,
            )
            await feed.begin(publisher, wiring.policy_documents(settings, clock.now()))
            seen = outputs.Outputs(health)
            flow = Flow(
                topics=topics(settings),
                schemas=schemas,
                registry=Registry(settings.registry) if settings.registry.url else None,
                policy=feed.current,
                scorer=_remembering(verified, asked, settings.guards.cache_entries),
                quick=lambda: asked.quick,
                publisher=outputs.WatchedPublisher(publisher, seen),
                audit=outputs.WatchedAudit(audit, seen),
                health=health,
                clock=clock,
                limits=flow_limits(settings),
                worker_id=settings.worker.id,
                crash=stop.crash,
                sealer=sealer,
            )
            app = faust_app.create(settings.kafka, data=Path(scratch), health=health)
            app.flow = flow
            add_agents(app, flow.topics, flow)
            _announce(guards)
            await worker.run(
                app,
                flow,
                verified,
                health=health,
                clock=clock,
                stop=stop,
                drain_s=settings.worker.drain_s,
                beside=[feed.watch(), heads.run(audit)],
            )


def _remembering(verified: VerifiedScorer, asked: Scorer, entries: int) -> Scores:
    """The verified scorer, behind a cache of scores if there is to be one.

    The cache stands in front: golden texts and canaries always reach the guards.
    """
    if not entries:
        return verified
    return CachedScorer(verified, ScoreCache(entries), asked.versions)


@asynccontextmanager
async def _chained(
    settings: Settings,
    publisher: KafkaPublisher,
    *,
    schemas: codec.Schemas,
    signer: Signer | None,
    health: Health,
    clock: SystemClock,
) -> AsyncIterator[tuple[ChainedLog, Checkpoints]]:
    """The audit log and the heads of its chains, which are ended in the end.

    Heads have a producer of their own: what stops it must not stop verdicts.
    """
    async with KafkaPublisher(
        settings.kafka, max_message_bytes=settings.topics.max_message_bytes, idempotent=False
    ) as for_heads:
        heads = Checkpoints(
            settings.topics.chain_heads,
            publisher=for_heads,
            schemas=schemas,
            signer=signer,
            health=health,
            clock=clock,
            every_s=settings.audit.checkpoint_s,
        )
        audit = ChainedLog(
            settings.topics.audit,
            appender=publisher,
            schemas=schemas,
            worker_id=settings.worker.id,
            on_change=heads.hurry,
        )
        try:
            yield audit, heads
        finally:
            await audit.close(_HEADS_CLOSED_WITHIN_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEADS_CLOSED_WITHIN_S):
                    await heads.write(audit)


def open_sealer(
    settings: Settings, policy: Policy, health: Health, clock: Clock
) -> tuple[Sealer, Callable[[Policy], None]]:
    """What seals contents, and what must hear of each policy that comes into force.

    Raises Misconfigured where a policy wants sealing and no folder is set. A
    tenant without a key is no reason to stop: erasing a tenant's key must not
    take the worker down. It is told, and the hash alone is kept.
    """
    wiring.require_key_folder(policy, settings)
    keys = wiring.open_keys(settings)
    watch = KeyWatch(keys or NoKeys(), health, clock)

    def expect(judging: Policy) -> None:
        if keys is not None:
            watch.expect(keys, judging.sealing_tenants())

    expect(policy)
    return watch, expect


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
            quick_batch_messages=batch.quick_batch_messages,
            batch_bytes=batch.batch_bytes,
            messages_in_flight=batch.messages_in_flight,
            bytes_in_flight=batch.bytes_in_flight,
            buffer_messages=batch.buffer_messages,
            buffer_bytes=batch.buffer_bytes,
            large_bytes=batch.large_bytes,
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
        max_dead_letter_bytes=settings.topics.max_message_bytes,
    )


async def _require_topics(settings: Settings) -> None:
    missing = await missing_topics(settings.kafka, settings.topics)
    if missing:
        raise Misconfigured(
            f"there is no topic {missing[0]!r} at {settings.kafka.bootstrap_servers}",
            remedy="Run `sluice topics create`",
        )


async def _require_few_dead_letters(settings: Settings) -> None:
    """Hold the bound across restarts: a supervisor must not drain a topic by insisting."""
    limits, named = settings.limits, settings.topics
    if not limits.dead_letter_memory_s:
        return
    since_ms = int((time.time() - limits.dead_letter_memory_s) * 1000)
    async with KafkaReader(settings.kafka) as reader:
        dead = await _count_since(reader, named.dead_letters, since_ms)
        good = await _count_since(reader, named.verdicts, since_ms)
    bound = flow_limits(settings).dead_letters
    require_below(bound, dead=dead, of=dead + good, when="latest")


async def _count_since(reader: KafkaReader, topic: str, since_ms: int) -> int:
    starts = await reader.offsets_at(topic, since_ms)
    return sum(part.end - starts[part.partition] for part in await reader.bounds(topic))


def _announce(guards: list[Guard]) -> None:
    for name in cascade.unmeasured(guards):
        log.warning("first-stage-unmeasured", before=name)
    for card in (each.card for guard in guards for each in (guard, guard.first) if each):
        metrics.GUARD.labels(card.name, card.version, card.digest).set(1)
