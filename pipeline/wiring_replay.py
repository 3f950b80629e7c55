"""A replay, put together: settings and a request in, what it found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import audit_log, policy_file, schema_ids, wiring, wiring_policy
from pipeline import settings as settings_file
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader, Slice
from pipeline.adapters.kafka_topics import ROLES
from pipeline.adapters.triton import TritonClassifier
from pipeline.codec import Schemas
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.health import Health
from pipeline.ranges import Range
from pipeline.replay import emission, policies
from pipeline.replay.comparison import Compared
from pipeline.replay.depths import Depth, Recorded, Rerun
from pipeline.replay.folder import Folder
from pipeline.replay.plan import Plan, Request, Scores, require_same
from pipeline.replay.policies import Choice
from pipeline.replay.run import Emit, Run, State, begun, resumed
from pipeline.scoring import Guard
from pipeline.sealing import Opener
from pipeline.selection import Selection
from pipeline.selftest import VerifiedScorer
from pipeline.settings import Settings, TopicSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to replay, how, and where to."""

    request: Request
    choice: Choice
    selection: Selection
    span: Range
    offsets: Sequence[Slice] = ()
    guards: Sequence[Guard] = ()
    opener: Opener | None = None
    folder: Folder | None = None
    embedded: bool = True


async def choose(settings: Settings, given: str) -> Choice:
    """The policy that decides: `recorded`, a digest of the policies topic, or a file.

    Raises Misconfigured when there is no such policy.
    """
    if given == policies.RECORDED:
        return policies.OfItsDay(await wiring_policy.lookup(settings))
    if policies.is_digest(given):
        lookup = await wiring_policy.lookup(settings)
        return policies.OneForAll(policies.by_digest(lookup, given))
    path = Path(given)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"--policy {given} cannot be read ({type(error).__name__})",
            remedy="Name a policy file, a digest (sha256:...), or `recorded`",
        ) from error
    return policies.OneForAll(policy_file.parse(text, name=given))


def guards_of(settings: Settings, names: Sequence[str]) -> list[Guard]:
    """The named guards, else the configured ones; raises Misconfigured about a card."""
    if not names:
        return wiring.load_guards(settings.guards)
    return [wiring.load_guard(settings.guards, name) for name in names]


def refuse_live(topic: str, topics: TopicSettings) -> None:
    """Raise Misconfigured when a topic is one that the workers or their readers live on."""
    for role in ROLES:
        if topic == getattr(topics, role):
            raise Misconfigured(
                f"--emit {topic} is the configured {role.replace('_', ' ')} topic",
                remedy="Name a topic of its own: a replay never writes to a live one",
            )


@asynccontextmanager
async def opened(
    settings: Settings, order: Order, say: Callable[[str], None]
) -> AsyncIterator[tuple[Run, AsyncIterator[audit_log.Entry]]]:
    """A replay ready to go, and the entries it has left; all is closed at the end.

    `say` gets a line when a Triton is started for it.
    """
    refuse_live(order.request.emit, settings.topics)
    schemas = wiring.load_schemas()
    await schema_ids.adopt(schemas, settings)
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(KafkaReader(settings.kafka))
        run = Run(
            *await _begin(reader, order),
            selection=order.selection,
            depth=await stack.enter_async_context(_depth(settings, order, say)),
            folder=order.folder,
            emit=await _emit(settings, order.request.emit, reader, schemas, stack),
            opener=order.opener,
        )
        if order.folder is not None:
            order.folder.open_flips()
        topic, passed = order.request.topic, run.state.passed
        # Unselected ones must be seen, too: the first verdict of an input is the one that counts.
        entries = audit_log.read(reader, topic, run.left(), schemas, Selection(), passed=passed)
        yield run, entries


async def _begin(reader: KafkaReader, order: Order) -> tuple[Plan, State]:
    """A fresh plan, its ends fixed now; or the one of the checkpoint."""
    request, checkpoint = order.request, order.folder.checkpoint if order.folder else None
    if checkpoint is not None:
        require_same(request, checkpoint["request"])
        slices = tuple(
            Slice(partition=partition, start=start, end=end)
            for partition, start, end in checkpoint["slices"]
        )
        return Plan(request=request, slices=slices), resumed(request, checkpoint)
    found = await audit_log.slices_within(reader, request.topic, order.span, order.offsets)
    return Plan(request=request, slices=tuple(found)), begun(request)


@asynccontextmanager
async def _depth(
    settings: Settings, order: Order, say: Callable[[str], None]
) -> AsyncIterator[Depth]:
    if order.request.scores is Scores.RECORDED:
        yield Recorded(order.choice)
        return
    async with _triton(settings, order, say) as triton:
        scorer = wiring.scorer(list(order.guards), triton, settings, SystemClock())
        # Scores of weights other than the card's would be worse than none.
        verified = VerifiedScorer(scorer, triton, Health(("guard",)))
        yield Rerun(order.choice, verified, order.opener)


@asynccontextmanager
async def _triton(
    settings: Settings, order: Order, say: Callable[[str], None]
) -> AsyncIterator[TritonClassifier]:
    """The configured Triton where it serves the guards, else one that lives for the call."""
    names = [guard.card.name for guard in order.guards]
    async with TritonClassifier(settings.triton) as triton:
        missing = [name for name in names if not await triton.ready(name)]
        if not missing:
            yield triton
            return
    if not order.embedded:
        raise DependencyUnavailable(
            f"Triton at {settings.triton.url} does not serve guard {missing[0]!r}",
            remedy="Load it, or correct --guard",
        )
    from pipeline.embedded import EmbeddedTriton

    say(f"no Triton for this at {settings.triton.url}: starting the embedded one for the call")
    async with EmbeddedTriton(settings.guards.repository, names, settings_file.home()) as server:
        own = settings.triton.model_copy(update={"url": server.grpc_address, "tls": False})
        async with TritonClassifier(own) as triton:
            yield triton


async def _emit(
    settings: Settings, topic: str, reader: KafkaReader, schemas: Schemas, stack: AsyncExitStack
) -> Emit | None:
    """Publishes to the topic, if one is named; it must be there."""
    if not topic:
        return None
    try:
        await reader.partitions(topic)
    except Misconfigured as error:
        raise Misconfigured(f"there is no topic {topic!r}", remedy="Create it first") from error
    limit = settings.topics.max_message_bytes
    publisher = await stack.enter_async_context(
        KafkaPublisher(settings.kafka, max_message_bytes=limit)
    )

    async def emit(compared: Sequence[Compared]) -> None:
        await publisher.publish([emission.record(each, topic, schemas) for each in compared])

    return emit
