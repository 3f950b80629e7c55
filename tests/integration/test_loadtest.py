"""The load test against a real broker; a few lines stand in for the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace

from loadtest import artefacts, figures
from loadtest.fleet import Fleet
from loadtest.guard_calls import GuardCalls
from loadtest.orders import Order
from loadtest.run import Running, Target
from loadtest.sweeping import Sweeping, read, steps
from loadtest.workload import Workload, validated
from pipeline import codec, headers
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader
from pipeline.adapters.kafka_topics import ROLES
from pipeline.embedded import EmbeddedKafka
from pipeline.errors import Rejected
from pipeline.events import Position
from pipeline.ports import Outgoing
from pipeline.ranges import Edge
from pipeline.settings import Settings
from tests.support import answering
from tests.support.cli import Sluice
from tests.support.golden_records import AUDIT

pytestmark = pytest.mark.timeout(120)

# A shared test machine may be late by any measure; one test is about lateness.
PATIENT = {"late_p99_ms": 60_000}


@pytest.fixture
async def settings(kafka: EmbeddedKafka) -> Settings:
    """Topics of the test's own."""
    return await answering.own_topics(kafka.bootstrap_servers)


def target(settings: Settings) -> Target:
    """The stack under test: a broker, and whoever answers."""
    named = {role: getattr(settings.topics, role) for role in ROLES}
    overrides = {
        "kafka": {"bootstrap_servers": settings.kafka.bootstrap_servers},
        "topics": named,
    }
    return Target(name="test", settings=settings, overrides=overrides)


def workload(**change: Any) -> Workload:
    """60 prompts within 0.6 seconds, with some parts changed."""
    base = {
        "question": "?",
        "settle_s": 20,
        "load": {"mode": "rate", "rate_per_s": 100, "messages": 60},
        "messages": {"prompts": 1.0},
        "validity": PATIENT,
    }
    return validated(base | change, "test")


@asynccontextmanager
async def worker(settings: Settings, *, times: int = 1) -> AsyncIterator[None]:
    """Answer every prompt `times` over, what cannot be decoded with dead letters."""

    async def answer(publisher: KafkaPublisher, reader: KafkaReader) -> None:
        async for record in reader.follow(starts):
            try:
                made = answering.outcome(settings, record)
            except Rejected:
                letter = answering.dead_letter_of(record)
                stamped = headers.provenance(letter)
                topic = settings.topics.dead_letters
                made = Outgoing(topic=topic, key=letter.key, value=letter.value, headers=stamped)
            await publisher.publish([made] * times)

    async with (
        KafkaPublisher(settings.kafka, max_message_bytes=1_000_000) as publisher,
        KafkaReader(settings.kafka) as reader,
    ):
        starts = await reader.starts(settings.topics.prompts, Edge.END)
        task = asyncio.create_task(answer(publisher, reader))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def finished(settings: Settings, load: Workload, folder: Path) -> dict[str, Any]:
    """The summary of a run."""
    return await Running(load, "test", target(settings)).finish(folder)


async def test_a_run_accounts_for_every_message(settings: Settings, tmp_path: Path) -> None:
    """Two generators, some malformed: each message has one outcome, artefacts tell it."""
    load = workload(
        generators=2,
        messages={"prompts": 1.0, "malformed": 0.2},
        thresholds=["lost == 0", "duplicates == 0", "dropped <= 1%"],
    )
    async with worker(settings):
        summary = await finished(settings, load, tmp_path)
    counts = summary["counts"]
    assert summary["passed"], summary
    assert counts["sent"] == counts["accepted"] == 60
    assert counts["verdicts"] + counts["dead_lettered"] == 60
    assert counts["dead_lettered"] == counts["malformed"] > 0
    assert summary["rows_ms"]["end_to_end"]["p50"] >= summary["rows_ms"]["naive"]["p50"] > 0
    assert artefacts.read(tmp_path)["counts"] == counts
    assert {"generator-1", "generator-2", "observer"} <= summary["usage"].keys()


async def test_guard_calls_are_read_from_the_audit_log(settings: Settings) -> None:
    """Those of other runs before, of other deployments and what is no event are left out."""
    at = Position(topic=settings.topics.prompts, partition=1, offset=7)
    elsewhere = replace(at, topic="another")
    values = [_audit(at, 0.0123), _audit(elsewhere, 0.5), b"no event"]
    async with KafkaPublisher(settings.kafka, max_message_bytes=1_000_000) as publisher:
        await publisher.publish([_event(settings, _audit(replace(at, offset=6), 0.1))])
        calls = await GuardCalls.from_now(settings)
        await publisher.publish([_event(settings, value) for value in values])
    assert (await calls.read()).tolist() == [[0, 1, 7, 12300]]


def _audit(at: Position, call_s: float) -> bytes:
    event = replace(AUDIT, verdict=replace(AUDIT.verdict, source=at), inference_s=call_s)
    return codec.encode_audit(event, answering.SCHEMAS)


def _event(settings: Settings, value: bytes) -> Outgoing:
    return Outgoing(topic=settings.topics.audit, key=b"k", value=value, headers=())


async def test_what_primes_the_stack_counts_for_nothing(settings: Settings, tmp_path: Path) -> None:
    """It is answered before the run begins; its texts are none of the run's."""
    load = workload(prime_messages=30, thresholds=["lost == 0", "duplicates == 0"])
    async with worker(settings), KafkaReader(settings.kafka) as reader:
        summary = await finished(settings, load, tmp_path)
        ends = await reader.starts(settings.topics.prompts, Edge.END)
    counts = summary["counts"]
    assert summary["passed"], summary
    assert sum(ends.values()) == 90
    assert (counts["scheduled"], counts["verdicts"], counts["foreign"]) == (60, 60, 0)


async def test_repeated_verdicts_are_counted_as_duplicates(
    settings: Settings, tmp_path: Path
) -> None:
    """Each message still counts once."""
    async with worker(settings, times=2):
        summary = await finished(settings, workload(thresholds=["duplicates <= 1%"]), tmp_path)
    assert summary["counts"]["verdicts"] == 60
    assert summary["counts"]["duplicates"] == 60
    assert not summary["passed"]


async def test_a_stall_of_the_generator_is_in_the_latency_and_makes_the_run_invalid(
    settings: Settings, tmp_path: Path
) -> None:
    """Stopped for a second, it is not restarted on a fresh schedule; the naive figure hides it."""
    load = workload(validity={"late_p99_ms": 300})
    running = Running(load, "test", target(settings))
    async with worker(settings):
        task = asyncio.create_task(running.finish(tmp_path))
        deadline_s = time.monotonic() + 30
        while not (running._fleet and running._fleet.total("sent")):
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
        (pid,) = running._fleet.pids.values()
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        os.kill(pid, signal.SIGCONT)
        summary = await task
    assert not summary["valid"]
    assert summary["counts"]["sent"] == 60
    assert summary["rows_ms"]["late"]["p99"] > 300
    gap_ms = summary["rows_ms"]["end_to_end"]["avg"] - summary["rows_ms"]["naive"]["avg"]
    assert gap_ms == pytest.approx(summary["rows_ms"]["late"]["avg"], rel=0.05)


async def test_a_closed_loop_ends_with_every_message_answered(
    settings: Settings, tmp_path: Path
) -> None:
    """Four callers that wait for their verdicts, from the start that rates count from."""
    load = workload(load={"mode": "closed", "concurrency": 4, "messages": 40})
    async with worker(settings):
        taken, _ = await Running(load, "test", target(settings))._take(tmp_path)
    assert figures.reasons(taken) == []
    assert figures.counts(taken)["verdicts"] == 40
    assert taken.joined.rows["sent_ns"].min() >= taken.start_ns


async def test_a_stop_sends_no_more_and_reports_what_was_done(
    settings: Settings, tmp_path: Path
) -> None:
    """As Ctrl-C does: the run is invalid, its messages are accounted for."""
    load = workload(load={"mode": "rate", "rate_per_s": 50, "duration_s": 60})
    running = Running(load, "test", target(settings))
    async with worker(settings):
        task = asyncio.create_task(running.finish(tmp_path))
        deadline_s = time.monotonic() + 30
        while not (running._fleet and running._fleet.total("sent")):
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
        running.stop()
        summary = await task
    assert summary["interrupted"]
    assert not summary["valid"]
    assert 0 < summary["counts"]["sent"] < summary["counts"]["scheduled"]
    assert summary["counts"]["lost"] == 0


async def test_a_sweep_ends_at_the_rate_that_does_not_hold(
    settings: Settings, tmp_path: Path
) -> None:
    """Nobody answers, so the first rate drops everything and the second is not tried."""
    load = workload(settle_s=0.2)
    sweeping = Sweeping(steps(load, [20, 40], 0.5), "test", target(settings), p95_limit_ms=500)
    await sweeping.finish(tmp_path)
    found = read(tmp_path)
    assert [step["state"] for step in found["steps"]] == ["dropped"]
    assert found["knee"]["holds_per_s"] is None
    assert "Sweep" in (tmp_path / "report.html").read_text()


async def test_a_generator_does_not_outlive_its_parent(settings: Settings, tmp_path: Path) -> None:
    """Its lifeline is the parent's end of a pipe; closing it is enough."""
    order = Order(
        run="ab12",
        workload=workload().model_dump(mode="json"),
        overrides=target(settings).overrides,
        part=0,
        of=1,
        rows=str(tmp_path / "rows.npy"),
    )
    async with Fleet([order]) as fleet:
        (pid,) = fleet.pids.values()
        assert psutil.pid_exists(pid)
        fleet.halt()
        deadline_s = time.monotonic() + 10
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.02)
    assert not psutil.pid_exists(pid)


def test_a_breached_threshold_exits_99(
    settings: Settings,
    capfdbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody answers: thresholds stand first on stdout, progress and the report's place apart."""
    for role in ROLES:
        monkeypatch.setenv(f"SLUICE_TOPICS__{role.upper()}", getattr(settings.topics, role))
    file = tmp_path / "unanswered.toml"
    file.write_text(
        'question = "does anybody answer?"\nsettle_s = 0.2\nthresholds = ["lost == 0"]\n'
        '[load]\nmode = "rate"\nrate_per_s = 20\nmessages = 4\n[validity]\nlate_p99_ms = 60000\n'
    )
    servers = settings.kafka.bootstrap_servers
    arguments = ("--bootstrap-servers", servers, "--out", str(tmp_path / "out"))
    done = Sluice(capfdbinary)("loadtest", "run", str(file), *arguments)
    assert done.code == 99, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("BREACHED unanswered")
    assert lines[1].split()[:1] == ["BREACHED"]
    assert "report.html" in done.err
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "no-such"), "no workload 'no-such'"),
        (("run", "smoke-50-per-s-5-s", "--embedded", "--watch", "a=1"), "stack of its own"),
        (("run", "smoke-50-per-s-5-s", "--watch", "worker"), "is not NAME=PID"),
        (("compare", "nowhere", "nowhere"), "no summary of a run"),
        (("plan", "--target-rate", "5", "--from", "nowhere"), "no sweep at nowhere"),
    ],
)
def test_a_users_mistake_is_told_in_a_line(
    capfdbinary: pytest.CaptureFixture[bytes], arguments: tuple[str, ...], told: str
) -> None:
    """Exit 2, no traceback."""
    done = Sluice(capfdbinary)("loadtest", *arguments)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err
