"""What is up, what is not, and what to do next: the checks behind `sluice doctor`.

Each check asks one thing, takes five seconds at most and never stops the
others; one that would only repeat an earlier failure is skipped.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson

from pipeline import wiring, wiring_admin
from pipeline.adapters.kafka_admin import cluster_brokers
from pipeline.adapters.triton import TritonClassifier
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.findings import Finding, State, finding, skipped
from pipeline.guards import cards
from pipeline.health import Health
from pipeline.scoring import Guard
from pipeline.selftest import VerifiedScorer
from pipeline.settings import Settings

PYTHONS: Final = ((3, 11), (3, 12))

# A proxy of the environment is for the world outside, not for a worker.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every check that needs settings, one by one."""
    yield await finding("policy", _policy(settings))
    for name in settings.guards.served:
        yield await finding(f"card of guard {name}", _card(settings, name))
    async for found in _kafka(settings):
        yield found
    if settings.registry.url:
        url = settings.registry.url
        yield await finding("schema registry", _registry(settings), asked=url)
    async for found in _triton(settings):
        yield found
    if settings.worker.http_port:
        yield await finding("worker", _worker(settings))


def python() -> Finding:
    """Whether this Python is one that Sluice is made for."""
    version, ok = platform.python_version(), sys.version_info[:2] in PYTHONS
    return Finding(
        name="python",
        state=State.OK if ok else State.WRONG,
        detail=version,
        remedy="" if ok else "Use Python 3.11 or 3.12",
    )


async def embedded() -> AsyncIterator[Finding]:
    """What the embedded stack would need; only information."""
    for name, check in (("java", _java), ("maven", _maven), ("tritonserver", _tritonserver)):
        found = await finding(f"embedded: {name}", asyncio.to_thread(check))
        yield Finding(name=found.name, state=State.INFO, detail=found.detail, remedy=found.remedy)


async def _policy(settings: Settings) -> str:
    ref = wiring.load_policy(settings).ref
    return f"{ref.id} version {ref.version} from {settings.policy.file}"


async def _card(settings: Settings, name: str) -> str:
    """The card fits tokenizer and weights, and the policy asks for nothing it lacks."""
    folder = settings.guards.repository / name
    card = cards.load(folder)
    await asyncio.to_thread(_check_weights, folder, card.model_digest)
    wiring.check_policy(wiring.load_policy(settings), wiring.load_guards(settings.guards))
    return f"version {card.version}, {len(card.labels)} categories, digests match"


def _check_weights(folder: Path, digest: str) -> None:
    """Raise Misconfigured unless a model file of some version has the card's digest."""
    files = sorted(folder.glob("[0-9]*/model.*"))
    if not any(cards.sha256(path.read_bytes()) == digest for path in files):
        seen = ", ".join(str(path.relative_to(folder)) for path in files) or "no model file"
        raise Misconfigured(
            f"the weights in {folder} are not those of its card ({seen}; wanted {digest})",
            remedy="Restore the guard's folder, or export the guard again",
        )


async def _kafka(settings: Settings) -> AsyncIterator[Finding]:
    broker = await finding("kafka", _brokers(settings), asked=settings.kafka.bootstrap_servers)
    yield broker
    if broker.state is not State.OK:
        yield skipped("topics", "Kafka does not answer")
        yield skipped("consumer lag", "Kafka does not answer")
        return
    topics = await finding("topics", _topics(settings))
    yield topics
    lag = await finding("consumer lag", _lag(settings))
    # Where topics are missing, lag has nothing to add to what was said of them.
    yield lag if lag.state is State.OK else skipped(lag.name, lag.detail)


async def _brokers(settings: Settings) -> str:
    brokers = await cluster_brokers(settings.kafka)
    many = "broker" if len(brokers) == 1 else "brokers"
    return f"{settings.kafka.bootstrap_servers}: {len(brokers)} {many}"


async def _topics(settings: Settings) -> str:
    found = await wiring_admin.check_topics(settings)
    differ = [each for each in found if not each.ok]
    if missing := [each.topic for each in differ if each.name == "exists"]:
        raise Misconfigured(f"missing: {', '.join(missing)}", remedy="Run `sluice topics create`")
    if differ:
        one = differ[0]
        raise Misconfigured(
            f"{one.topic} has {one.name} {one.found}, wanted {one.wanted}",
            remedy="`sluice topics check` shows every difference",
        )
    return f"all {len({each.topic for each in found})} are as the settings say"


async def _lag(settings: Settings) -> str:
    lag = await wiring_admin.lag(settings)
    waiting = ", ".join(f"{topic} {count:,}" for topic, count in lag.items())
    return f"messages that group {settings.kafka.group} has not committed: {waiting}"


async def _registry(settings: Settings) -> str:
    ids = await wiring_admin.registered(settings)
    if missing := [subject for subject, schema_id in ids.items() if schema_id is None]:
        raise Misconfigured(
            f"it lacks our schema of {', '.join(missing)}", remedy="Run `sluice schemas register`"
        )
    return f"{len(ids)} schemas registered"


async def _triton(settings: Settings) -> AsyncIterator[Finding]:
    try:
        guards = wiring.load_guards(settings.guards)
    except Misconfigured:
        guards = []
    answers = True
    for name in settings.guards.served:
        served = _served(settings, name)
        found = await finding(f"guard {name} in Triton", served, asked=settings.triton.url)
        answers = answers and found.state is State.OK
        yield found
    if not (answers and guards):
        yield skipped("golden texts", "a guard or its card is not well")
        return
    yield await finding("golden texts", _golden(settings, guards))


async def _served(settings: Settings, name: str) -> str:
    async with TritonClassifier(settings.triton) as triton:
        if not await triton.ready(name):
            raise DependencyUnavailable(
                f"Triton at {settings.triton.url} answers, but guard {name!r} is not ready",
                remedy="Load it, or correct guards.names; the server's log says why it is not",
            )
        digest, most = await triton.served_digest(name), await triton.most_rows(name)
    if most is not None and settings.guards.max_rows > most:
        raise Misconfigured(
            f"guard {name!r} takes {most} rows in a call, guards.max_rows is"
            f" {settings.guards.max_rows}: each larger call is refused and cut in two",
            remedy=f"Set guards.max_rows = {most}, or raise max_batch_size in the guard's config",
        )
    own = cards.load(settings.guards.repository / name).model_digest
    if digest is None:
        return f"ready at {settings.triton.url}; it states no digest to compare"
    if digest != own:
        raise Misconfigured(
            f"Triton serves weights {digest}, the card here says {own}",
            remedy="Give worker and server the same model repository",
        )
    return f"ready at {settings.triton.url}, with the card's weights"


async def _golden(settings: Settings, guards: Sequence[Guard]) -> str:
    async with TritonClassifier(settings.triton) as triton, wiring.open_scorer(settings) as scorer:
        await VerifiedScorer(scorer, triton, Health(("guard",))).verify()
    count = sum(len(guard.card.golden) for guard in guards)
    return f"{count} score as the cards say"


async def _worker(settings: Settings) -> str:
    url = f"http://{settings.worker.http_host}:{settings.worker.http_port}/readyz"
    status, body = await asyncio.to_thread(_get, url)
    if status == 200:
        return f"ready at {url}"
    lacking = [
        f"{name}: {check.get('detail', '')}"
        for name, check in body.get("checks", {}).items()
        if not check.get("ok")
    ]
    raise DependencyUnavailable(
        f"not ready at {url} ({'; '.join(lacking) or f'HTTP {status}'})",
        remedy="Mend what it lacks; it becomes ready by itself",
    )


def _get(url: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON body; raises DependencyUnavailable where nothing answers."""
    try:
        try:
            with _DIRECT.open(url, timeout=3.0) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        body = orjson.loads(raw)
    except (OSError, ValueError, HTTPException) as error:
        raise DependencyUnavailable(
            f"no worker answers at {url}",
            remedy="Start one with `sluice worker`, or correct worker.http_host and http_port",
        ) from error
    return status, body if isinstance(body, dict) else {}


def _java() -> str:
    from pipeline.embedded import jars

    java = jars.find_java()
    return f"{java}, version {jars.java_version(java)}"


def _maven() -> str:
    from pipeline.embedded import jars

    return str(jars.find_maven())


def _tritonserver() -> str:
    from pipeline.embedded.wheel import find_triton

    with TemporaryDirectory(prefix="sluice-") as scratch:
        return str(find_triton(Path(scratch)).server)
