"""`python -m loadtest.bench.replay`: how many audit records a second does `sluice replay` decide?

It starts a broker, fills an audit topic with events as the worker writes them,
runs the command on it as a user would, and prints what that took from start to
exit. The events are made up from a seed; their sizes and shapes are the
worker's own, since its codec writes them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import orjson

from loadtest.bench.answer import status
from loadtest.bench.options import positive
from pipeline import codec, settings, wiring
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.adapters.kafka_topics import ROLES, create_topics
from pipeline.embedded import EmbeddedKafka
from pipeline.events import (
    Coverage,
    GuardRef,
    Judgement,
    Kind,
    Message,
    Outcome,
    Position,
    Received,
)
from pipeline.moderation import Intake, Stamp, admit, conclude
from pipeline.policy import Policy
from pipeline.ports import Outgoing
from pipeline.settings import Settings, home
from pipeline.taxonomy import CATEGORIES

PARTITIONS: Final = 4
_BEGAN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_AT_ONCE: Final = 2_000
_PROSE: Final = (
    "please write short story about river town where every spring the water rises and people"
    " carry their books up stairs then explain how to mend old clock with few tools"
)
_WORDS: Final = tuple(_PROSE.split())


def events(count: int, policy: Policy, *, seed: int = 1) -> Iterator[tuple[str, Outcome]]:
    """Outcomes of `count` messages, concluded by the worker's own function."""
    chance = random.Random(seed)  # noqa: S311 - figures, not secrets
    intake = Intake(max_text_bytes=1_000_000, max_future_s=1e9)
    for number in range(count):
        message = _message(number, chance)
        at = _BEGAN + timedelta(milliseconds=5 * number)
        topic = "completions" if message.kind is Kind.COMPLETION else "prompts"
        position = Position(topic=topic, partition=number % PARTITIONS, offset=number // PARTITIONS)
        case = admit(Received(message=message, position=position, received_at=at), policy, intake)
        stamp = Stamp(worker_id="worker-1", now=at, scored_at=at)
        yield message.message_id, conclude(case, [_judgement(chance)], stamp)


def _message(number: int, chance: random.Random) -> Message:
    return Message(
        message_id=f"message-{number:08d}",
        kind=Kind.COMPLETION if number % 4 == 0 else Kind.PROMPT,
        text=" ".join(chance.choices(_WORDS, k=40)),
        conversation_id=f"conversation-{number // 6}",
        tenant=("", "acme", "kids", "demo")[number % 4],
        route="chat",
        language=("en", "de", "fr")[number % 3],
        sent_at=_BEGAN,
    )


def _judgement(chance: random.Random) -> Judgement:
    """Scores as a guard spreads them: most near 0, one in twelve a hazard."""
    hazard = chance.random() < 1 / 12
    scores = {code: round(chance.random() ** 6 * 0.4, 4) for code in CATEGORIES}
    if hazard:
        scores[chance.choice(list(CATEGORIES))] = chance.random()
        scores["unsafe"] = chance.random()
    return Judgement(
        guard=GuardRef(name="default", version="1", digest="sha256:" + "0" * 64),
        scores=scores,
        coverage=Coverage(scanned_tokens=50, total_tokens=50),
        template_digest="sha256:" + "1" * 64,
        windows=1,
        batch_rows=32,
        queued_s=chance.random() * 0.05,
        inference_s=chance.random() * 0.05,
    )


async def fill(loaded: Settings, count: int) -> int:
    """Publish the events to the audit topic; returns their mean size in bytes."""
    schemas, policy, size_bytes = wiring.load_schemas(), wiring.load_policy(loaded), 0
    limit = loaded.topics.max_message_bytes
    async with KafkaPublisher(loaded.kafka, max_message_bytes=limit) as publisher:
        batch: list[Outgoing] = []
        for message_id, outcome in events(count, policy):
            value = codec.encode_audit(outcome.audit, schemas)
            size_bytes += len(value)
            batch.append(
                Outgoing(
                    topic=loaded.topics.audit, key=message_id.encode(), value=value, headers=()
                )
            )
            if len(batch) == _AT_ONCE:
                await publisher.publish(batch)
                batch = []
        await publisher.publish(batch)
    return size_bytes // count


async def measure(count: int, rounds: int, policy: Path | None) -> int:
    """Fill a topic, run the command on it and print what it took; the exit status."""
    with TemporaryDirectory(prefix="sluice-replay-") as scratch:
        async with EmbeddedKafka(home(), Path(scratch) / "kafka") as kafka:
            own = uuid.uuid4().hex[:8]
            chosen = {
                "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
                "topics": {"partitions": PARTITIONS} | {role: f"{role}-{own}" for role in ROLES},
            }
            loaded = settings.load(chosen)
            await create_topics(loaded.kafka, loaded.topics)
            size_bytes = await fill(loaded, count)
            print(f"{count:,} audit records of {size_bytes} bytes in {PARTITIONS} partitions")
            given = policy or _strict(Path(scratch), loaded.policy.file)
            variables = {
                "SLUICE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                "SLUICE_TOPICS__AUDIT": loaded.topics.audit,
            }
            for number in range(1, rounds + 1):
                out = Path(scratch) / f"out-{number}"
                ended = await asyncio.to_thread(_once, variables, given, out, count)
                if ended:
                    return ended
    return 0


def _strict(folder: Path, shipped: Path) -> Path:
    """The shipped policy with lower thresholds, so that there are flips."""
    path = folder / "strict.toml"
    text = shipped.read_text(encoding="utf-8").replace('id = "default"', 'id = "strict"')
    path.write_text(text.replace("flag = 0.64, review = 0.8", "flag = 0.5, review = 0.7"))
    return path


def _once(variables: dict[str, str], policy: Path, out: Path, count: int) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    command = [sys.executable, "-m", "pipeline", "replay", "--policy", str(policy)]
    began_s, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [*command, "--out", str(out)], env=kept | variables, check=False, stdout=subprocess.DEVNULL
    )
    took_s, after = time.perf_counter() - began_s, os.times()
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    if done.returncode:
        print(f"sluice replay ended with {done.returncode}", file=sys.stderr)
        return done.returncode
    compared = orjson.loads((out / "summary.json").read_bytes())["records"]["compared"]
    if compared != count:
        print(f"it compared {compared:,} of {count:,} records", file=sys.stderr)
        return 1
    print(f"{took_s:.2f} s from start to exit, {cpu_s:.2f} s CPU: {count / took_s:,.0f} records/s")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0, 1 when it could not be measured, or the status of a command that failed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.replay", description=__doc__)
    parser.add_argument("--records", type=positive, default=100_000)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--policy", type=Path, help="none: the shipped one, a little stricter")
    given = parser.parse_args(arguments)
    return status(lambda: asyncio.run(measure(given.records, given.rounds, given.policy)))


if __name__ == "__main__":
    sys.exit(main())
