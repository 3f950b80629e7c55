"""`python -m loadtest.bench.ceiling`: the worker end to end, beside Triton alone.

The same texts in the same windows under the same guard settings, every message
counted: Triton driven directly at the concurrency it does best at, the worker from
Kafka to Kafka, from its readiness to the last outcome. One after the other, round
by round; the median of the rounds' ratios counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtest import environment, mix, workload
from loadtest.bench.answer import answer, say
from loadtest.bench.drain import drain
from loadtest.bench.options import positive, writable
from loadtest.stamp import message_id
from pipeline import codec, settings, wiring
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.adapters.triton import TritonClassifier
from pipeline.batching import plan
from pipeline.embedded.scratch import scratch
from pipeline.embedded.stack import EmbeddedStack
from pipeline.envelope import Envelope
from pipeline.errors import Misconfigured
from pipeline.events import Kind, Message
from pipeline.guards.framing import frame
from pipeline.resources import shipped
from pipeline.scoring import Guard
from pipeline.settings import Settings

CONCURRENCIES: Final = (1, 2, 3, 4, 6)
MESSAGES: Final = 12_000
"""Half a minute: what is sustained counts, not a worker's first second and its last calls."""

_TRIED: Final = 1_000
"""Messages that are enough to find the best concurrency."""

_TOGETHER: Final = 64
"""Messages whose windows are planned together, as a worker's batch is."""

_GUARDS: Final = {"cache_entries": 0, "first": None}
"""Every window is asked about, by both, and by one guard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Token rows of one request to Triton."""

    rows: tuple[tuple[int, ...], ...]
    length: int


def messages_of(load: workload.Workload, count: int) -> list[Message]:
    """The first well-formed messages of a workload."""
    recipe = mix.Recipe(load)
    return [recipe.piece(number, message_id("ceiling", number)).message for number in range(count)]


def calls_of(guard: Guard, messages: Sequence[Message], at: Settings) -> list[Call]:
    """The guard calls that a worker would make for the messages, batch by batch."""
    bounds, calls = at.guards, []
    for start in range(0, len(messages), _TOGETHER):
        texts = frame(
            guard.card,
            guard.tokenizer,
            messages[start : start + _TOGETHER],
            max_windows=bounds.max_windows,
            plain_too=guard.card.normalise,
        )
        planned = plan(
            [[len(window) for window in text.windows] for text in texts],
            buckets=guard.card.buckets,
            max_rows=bounds.max_rows,
            max_tokens=bounds.max_tokens,
        )
        calls += [
            Call(
                rows=tuple(texts[request].windows[window] for request, window in call.rows),
                length=call.length,
            )
            for call in planned
        ]
    return calls


async def direct(guard: Guard, calls: Sequence[Call], at: Settings, concurrency: int) -> float:
    """Seconds that Triton takes for all calls, so many in flight."""
    waiting = iter(calls)

    async def ask(triton: TritonClassifier) -> None:
        """Make the calls that nobody has made yet."""
        for call in waiting:
            await triton.infer(
                guard.card.name, call.rows, length=call.length, pad_id=guard.card.pad_id
            )

    async with TritonClassifier(at.triton) as triton:
        await ask_once(triton, guard, calls)
        began_s = time.monotonic()
        await asyncio.gather(*(ask(triton) for _ in range(concurrency)))
        return time.monotonic() - began_s


async def ask_once(triton: TritonClassifier, guard: Guard, calls: Sequence[Call]) -> None:
    """One call outside the time, so that none pays for the connection."""
    call = calls[0]
    await triton.infer(guard.card.name, call.rows, length=call.length, pad_id=guard.card.pad_id)


async def measure(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Every figure, as it goes to `--json`."""
    load = workload.read(workload.find(name))
    wanted = settings.load({"guards": _GUARDS})
    guard = only_guard(wanted)
    home, machine = settings.home(), environment.describe()
    with scratch(home / "loadtest", prefix="ceiling-", say=say) as data:
        stack = EmbeddedStack(wanted, home=home, data=data, environ=dict(os.environ), say=say)
        async with stack:
            at = settings.load({"guards": _GUARDS, **stack.overrides()})
            messages = messages_of(load, count)
            await _publish(messages, at)
            found = await _compare(guard, messages, at, rounds, data)
    return {"workload": name, "messages": count, "environment": machine, **found}


def only_guard(at: Settings) -> Guard:
    """The configured guard; raises Misconfigured when there are several."""
    found = wiring.load_guards(at.guards)
    if len(found) != 1:
        raise Misconfigured(
            f"guards.names has {len(found)} guards: Triton alone is driven with one",
            remedy="Name one of them, as in SLUICE_GUARDS__NAMES='[\"default\"]'",
        )
    return found[0]


async def _compare(
    guard: Guard, messages: Sequence[Message], at: Settings, rounds: int, folder: Path
) -> dict[str, Any]:
    calls = calls_of(guard, messages, at)
    tried = await _tried(guard, messages[:_TRIED], at)
    best = max(tried, key=tried.__getitem__)
    say(f"Triton alone does best with {best} calls in flight")
    common = for_worker(at)
    alone, whole, ratios, cpu_us = [], [], [], []
    for number in range(rounds):
        drained = None
        if number % 2:
            drained = await drain(common, len(messages), folder)
        alone.append(len(messages) / await direct(guard, calls, at, best))
        drained = drained or await drain(common, len(messages), folder)
        whole.append(drained.whole_per_s)
        cpu_us.append(drained.cpu_us)
        ratios.append(whole[-1] / alone[-1])
        say(f"round {number + 1}: {alone[-1]:.1f}/s alone, {whole[-1]:.1f}/s end to end")
    return {
        "tokens": sum(call.length * len(call.rows) for call in calls),
        "concurrencies_per_s": {str(each): per_s for each, per_s in tried.items()},
        "concurrency": best,
        "alone_per_s": alone,
        "worker_per_s": whole,
        "worker_cpu_us": cpu_us,
        "ratios": ratios,
    }


async def _tried(guard: Guard, messages: Sequence[Message], at: Settings) -> dict[int, float]:
    """Messages a second by Triton alone, by calls in flight."""
    calls = calls_of(guard, messages, at)
    return {each: len(messages) / await direct(guard, calls, at, each) for each in CONCURRENCIES}


def for_worker(at: Settings) -> dict[str, dict[str, Any]]:
    """The settings under which Triton is driven directly, for the worker to run under."""
    return {
        "kafka": {"bootstrap_servers": at.kafka.bootstrap_servers},
        "topics": at.topics.model_dump(mode="json"),
        "triton": at.triton.model_dump(mode="json"),
        "guards": at.guards.model_dump(mode="json"),
    }


async def _publish(messages: Sequence[Message], at: Settings) -> None:
    topics = {Kind.PROMPT: at.topics.prompts, Kind.COMPLETION: at.topics.completions}
    limit = at.topics.max_message_bytes
    envelope = Envelope(
        topics,
        codec.load_schemas(shipped("schemas")),
        wire="avro",
        source="sluice/loadtest",
        max_bytes=limit,
    )
    async with KafkaPublisher(at.kafka, max_message_bytes=limit) as publisher:
        await publisher.publish([envelope.around(message) for message in messages])


def lines(found: dict[str, Any]) -> list[str]:
    """The result as a person reads it."""
    alone, whole, cpu_us, ratio = (
        statistics.median(found[key])
        for key in ("alone_per_s", "worker_per_s", "worker_cpu_us", "ratios")
    )
    name, count, calls = found["workload"], found["messages"], found["concurrency"]
    tokens, rounds = found["tokens"] / count, ", ".join(f"{each:.2f}" for each in found["ratios"])
    return [
        f"{name}: {count:,} messages, {tokens:.0f} padded tokens each; medians of the rounds",
        f"  Triton alone, {calls} calls in flight: {alone:.1f}/s",
        f"  the worker, Kafka to Kafka: {whole:.1f}/s, {cpu_us:.0f} µs of its CPU a message",
        f"  ratio: {ratio:.2f} (rounds: {rounds})",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.ceiling", description=__doc__)
    parser.add_argument("--workload", default="osprey-gate-10k-at-1000-per-s", help="for its mix")
    parser.add_argument(
        "--messages", type=positive, default=MESSAGES, help="well above worker.messages_in_flight"
    )
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure there")
    given = parser.parse_args(arguments)
    return answer(measure(given.workload, given.messages, given.rounds), lines, given.json)


if __name__ == "__main__":
    sys.exit(main())
