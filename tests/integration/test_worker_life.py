"""The worker from start to end: refusals, limits, signals, a lost broker, its numbers."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.loopback import free_ports
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.events import Kind
from tests.support import places
from tests.support.places import MARKER, Place, ended, get, metric, until

Open = Callable[..., AbstractAsyncContextManager[Place]]


@pytest.fixture
def open_place(
    kafka: EmbeddedKafka, triton: EmbeddedTriton, tiny_repository: Path, tmp_path: Path
) -> Open:
    """Opens a place on the shared broker and server."""

    def opened(**variables: str) -> places.Opening:
        return places.open_place(
            tmp_path, kafka=kafka.bootstrap_servers, triton=triton.grpc_address,
            repository=tiny_repository, **variables,
        )  # fmt: skip

    return opened


async def _refused(worker: EmbeddedWorker, *, within_s: float) -> tuple[int, str]:
    """Exit status and log of a worker that cannot start; the error is a line, no traceback."""
    await worker.launch()
    status = await ended(worker, within_s=within_s)
    log = worker.log.read_text()
    assert "Traceback" not in log
    return status, log


def _signal(worker: EmbeddedWorker, number: signal.Signals) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, number)


# Start ------------------------------------------------------------------------


async def test_a_broker_that_is_not_there_is_named(open_place: Open) -> None:
    """Exit code 3 within twelve seconds, with the address."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    async with open_place(SLUICE_KAFKA__BOOTSTRAP_SERVERS=address) as place:
        status, log = await _refused(place.worker(), within_s=12.0)
    assert status == 3
    assert f"Kafka at {address} does not answer" in log


async def test_missing_topics_are_named(open_place: Open) -> None:
    """Exit code 2, with the topic and the command that makes it."""
    async with open_place(SLUICE_TOPICS__AUDIT="nowhere.v1") as place:
        status, log = await _refused(place.worker(), within_s=15.0)
    assert status == 2
    assert "'nowhere.v1'" in log
    assert "sluice topics create" in log


async def test_a_broken_policy_is_named(open_place: Open, tmp_path: Path) -> None:
    """Exit code 2, with the file and the key."""
    policy = tmp_path / "broken.toml"
    policy.write_text('id = "x"\nversion = "1"\n[default.prompt]\nunsafe = { blokc = 0.5 }\n')
    async with open_place(SLUICE_POLICY__FILE=str(policy)) as place:
        status, log = await _refused(place.worker(), within_s=15.0)
    assert status == 2
    assert "broken.toml" in log.replace("\n", "")
    assert "default.prompt.unsafe.blokc" in log


async def test_a_taken_health_port_is_named(open_place: Open) -> None:
    """Exit code 2, with the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with open_place() as place:
            worker = place.worker(port=taken.getsockname()[1])
            status, log = await _refused(worker, within_s=15.0)
    assert status == 2
    assert "worker.http_port" in log


# The bound on dead letters ------------------------------------------------------


async def test_garbage_alone_stops_the_worker_before_it_drains_the_topic(open_place: Open) -> None:
    """Exit code 5 below the bound; with the bound raised, a new worker buries all of it."""
    bound = {"SLUICE_LIMITS__DEAD_LETTER_COUNT": "20", "SLUICE_LIMITS__DEAD_LETTER_WINDOW": "50"}
    async with open_place() as place:
        garbage = [place.raw(f"{MARKER} {n}".encode(), key=None) for n in range(300)]
        await place.publish(garbage)
        worker = place.worker(**bound)
        await worker.launch()
        assert await ended(worker, within_s=30.0) == 5
        log = worker.log.read_text()
        assert "sluice dlq ls" in log
        assert "limits.dead_letter_ratio" in log
        assert len(await place.letters()) < 20
        await place.no_commit_ahead()
        await place.start_worker(**bound, SLUICE_LIMITS__DEAD_LETTER_RATIO="1")
        report = await place.reconciled()
        assert report.total("dead_letters") == 300
        assert report.total("verdicts") == 0


async def test_restarting_does_not_drain_the_topic(open_place: Open) -> None:
    """A supervisor that insists gets exit code 5 every time, and no more dead letters."""
    bound = {
        "SLUICE_LIMITS__DEAD_LETTER_COUNT": "20",
        "SLUICE_WORKER__BATCH_MESSAGES": "8",
        "SLUICE_WORKER__MESSAGES_IN_FLIGHT": "8",
    }
    async with open_place() as place:
        await place.publish([place.raw(f"{MARKER} {n}".encode(), key=None) for n in range(300)])
        worker = place.worker(**bound)
        for _ in range(5):
            await worker.launch()
            assert await ended(worker, within_s=30.0) == 5
        assert len(await place.letters()) < 40


# Signals ------------------------------------------------------------------------


async def test_sigterm_in_the_middle_drains(open_place: Open) -> None:
    """Exit code 0 in time; what was in flight has its outcome or is delivered again."""
    one_by_one = {"SLUICE_GUARDS__MAX_ROWS": "1", "SLUICE_WORKER__BATCH_MESSAGES": "1"}
    async with open_place() as place:
        worker = await place.start_worker(**one_by_one)
        positions = await place.texts(*("slow" for _ in range(20)))  # half a second each
        await until(lambda: _ended_messages(worker, 1), "a first verdict")
        _signal(worker, signal.SIGTERM)
        began_s = time.monotonic()
        assert await ended(worker, within_s=10.0) == 0
        assert time.monotonic() - began_s < 3.0 + 5.0
        await place.no_commit_ahead()
        # The first one, and those that were in flight; none of those that waited.
        assert 1 < len(await place.outcomes()) < len(positions)
        await place.start_worker()
        report = await place.reconciled(within_s=40.0)
        assert report.total("verdicts") == len(positions)
        assert report.total("repeats") == 0


async def test_a_second_sigterm_changes_nothing(open_place: Open) -> None:
    """Idle, it ends with exit code 0 and without an error in its log."""
    async with open_place() as place:
        worker = await place.start_worker()
        await place.settled(await place.texts("a"))
        _signal(worker, signal.SIGTERM)
        _signal(worker, signal.SIGTERM)
        assert await ended(worker, within_s=10.0) == 0
        assert (
            '"level": "error"'
            not in worker.log.read_text()
            .replace("GroupCoordinatorNotAvailableError", "")
            .partition("worker-stopping")[2]
        )


async def test_a_frozen_worker_is_replaced_and_does_no_harm_on_waking(open_place: Open) -> None:
    """SIGSTOP past the session timeout, another takes over, SIGCONT: all is accounted for."""
    async with open_place(SLUICE_GUARDS__MAX_ROWS="1") as place:
        frozen = await place.start_worker()
        first = await place.texts(*("slow" for _ in range(20)))

        async def under_way() -> bool:
            return (await metric(frozen, "sluice_in_flight_messages")).get((), 0.0) > 5

        await until(under_way, "messages in flight")
        _signal(frozen, signal.SIGSTOP)
        other = await place.start_worker(SLUICE_GUARDS__MAX_ROWS="32")
        await place.settled([*first, *await place.texts(*(f"t {n}" for n in range(50)))])
        _signal(frozen, signal.SIGCONT)
        late = await place.texts(*(f"late {n}" for n in range(50)))
        for _ in range(4):
            await place.no_commit_ahead()
        await place.settled(late)
        await until(frozen.ready, "readiness of the woken worker", within_s=30.0)
        last = await place.texts(*(f"last {n}" for n in range(50)))
        await place.settled(last)
        report = await place.reconciled()
        assert report.total("verdicts") == 170
        assert frozen.status is None
        assert other.status is None


async def test_what_comes_after_the_start_is_judged_however_the_worker_ends(
    open_place: Open,
) -> None:
    """With `start_from = "latest"`, too: killed before its first commit, it begins there again."""
    async with open_place(SLUICE_KAFKA__START_FROM="latest") as place:
        before = await place.texts("too early")
        worker = await place.start_worker()
        _signal(worker, signal.SIGKILL)
        await ended(worker, within_s=10.0)
        missed = await place.texts(*(f"in between {n}" for n in range(20)))
        await place.start_worker()
        await place.settled([*missed, *await place.texts("afterwards")])
        assert not set(before) & set(await place.outcomes())


async def _ended_messages(worker: EmbeddedWorker, at_least: int) -> bool:
    return sum((await metric(worker, "sluice_messages_total")).values()) >= at_least


# Numbers ----------------------------------------------------------------------------


async def test_the_counters_are_exact_and_lag_returns_to_zero(open_place: Open) -> None:
    """Known traffic: each counter says exactly what was published; no text is a label."""
    async with open_place() as place:
        worker = await place.start_worker()
        named = place.settings.topics
        positions = await place.publish([
            *(place.record(f"text {n}") for n in range(10)),
            *(place.record("full of hate") for _ in range(3)),
            *(place.record("inject this") for _ in range(2)),
            *(place.record("an answer", kind=Kind.COMPLETION) for _ in range(4)),
            *(place.record("hate", kind=Kind.COMPLETION) for _ in range(1)),
            *(place.raw(b"?") for _ in range(3)),
            place.raw(None, kind=Kind.COMPLETION),
        ])  # fmt: skip
        await place.settled(positions)
        await place.reconciled()
        assert await metric(worker, "sluice_messages_total") == {
            ("verdict", named.prompts): 15.0, ("dead-letter", named.prompts): 3.0,
            ("verdict", named.completions): 5.0, ("dead-letter", named.completions): 1.0,
        }  # fmt: skip
        assert await metric(worker, "sluice_verdicts_total") == {  # action, category, kind
            ("allow", "", "prompt"): 10.0, ("block", "unsafe", "prompt"): 3.0,
            ("block", "injection", "prompt"): 2.0, ("allow", "", "completion"): 4.0,
            ("block", "unsafe", "completion"): 1.0,
        }  # fmt: skip
        letters = await metric(worker, "sluice_dead_letters_total")
        assert letters == {("not-framed",): 3.0, ("null-value",): 1.0}
        for name in ("degraded_total", "classifier_errors_total", "publish_errors_total"):
            assert await metric(worker, f"sluice_{name}") == {}
        ends = await metric(worker, "sluice_end_to_end_seconds_count")
        assert ends == {("prompt",): 15.0, ("completion",): 5.0}
        assert (await metric(worker, "sluice_batch_messages_sum")) == {(): 24.0}
        for name in ("consumer_lag_messages", "consumer_lag_seconds", "in_flight_messages"):
            await until(lambda name=name: _is_zero(worker, name), f"{name} of 0", within_s=5.0)  # type: ignore[misc]
        assert MARKER.encode() not in (await get(worker, "/metrics")).body


async def _is_zero(worker: EmbeddedWorker, name: str) -> bool:
    return await metric(worker, f"sluice_{name}") == {}
