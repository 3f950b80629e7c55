"""Triton away, wrong or brought down: messages wait, degrade, or are told apart."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.events import Action, DeadLetter, Kind, Position, Status, Verdict
from tests.support import places, tiny_guard
from tests.support.places import Place, ended, get, metric, until

_POLICY = """
id = "patience"
version = "1"
[default.prompt]
unsafe = { block = 0.5 }
[default.completion]
unsafe = { block = 0.5 }
[tenants.hasty]
on_unavailable = "degrade"
degrade_after_s = 1.0
unscanned_action = "block"
[tenants.hasty.routes.lenient]
unscanned_action = "flag"
"""

Open = Callable[..., AbstractAsyncContextManager[Place]]


@pytest.fixture(scope="module")
async def server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedTriton]:
    """A Triton of this module's own, which its tests may kill."""
    folder = tmp_path_factory.mktemp("outage")
    async with EmbeddedTriton(tiny_repository, ["tiny"], folder) as triton:
        yield triton
        await triton.kill()  # an orderly stop takes three seconds longer


@pytest.fixture
async def open_place(
    kafka: EmbeddedKafka, server: EmbeddedTriton, tiny_repository: Path, tmp_path: Path
) -> Open:
    """Opens a place on that Triton, which runs again whatever the last test did."""
    await server.start()

    def opened(repository: Path = tiny_repository, **variables: str) -> places.Opening:
        return places.open_place(
            tmp_path, kafka=kafka.bootstrap_servers, triton=server.grpc_address,
            repository=repository, **variables,
        )  # fmt: skip

    return opened


async def _not_ready(worker: EmbeddedWorker) -> bool:
    return (await get(worker, "/readyz")).status == 503


async def test_held_messages_wait_for_the_guard(open_place: Open, server: EmbeddedTriton) -> None:
    """Triton away: not ready, alive, lag shows, nothing is published; back: all are scored."""
    async with open_place() as place:
        worker = await place.start_worker()
        await place.settled(await place.texts("before"))
        await server.kill()
        # Four batches are in flight at most, so that four messages have all been tried.
        waiting = await place.texts("a", "b", "full of hate", "d")
        await until(lambda: _not_ready(worker), "503 from /readyz")

        async def lag_shows() -> bool:
            return sum((await metric(worker, "sluice_consumer_lag_messages")).values()) == 4

        await until(lag_shows, "lag of four messages")
        guard = (await get(worker, "/readyz")).checks["guard"]
        assert guard["ok"] is False
        assert server.grpc_address in guard["detail"]
        assert (await get(worker, "/livez")).status == 200
        assert sum((await metric(worker, "sluice_consumer_lag_seconds")).values()) > 0
        assert len(await place.outcomes()) == 1
        await server.start()
        found = await place.settled(waiting)
        assert [found[at][0].action for at in waiting] == ["allow", "allow", "block", "allow"]  # type: ignore[union-attr]
        attempts = {a.verdict.source: a.attempt for a in await place.audits()}
        assert all(attempts[position] > 1 for position in waiting)
        await until(worker.ready, "readiness")
        await place.reconciled()


async def test_a_worker_that_starts_before_triton_shows_its_lag(
    open_place: Open, server: EmbeddedTriton
) -> None:
    """A fresh group without any commit: lag counts from where it starts to read."""
    async with open_place() as place:
        await server.kill()
        positions = await place.texts(*(f"text {n}" for n in range(30)))
        worker = place.worker()
        await worker.launch()

        async def lag_shows() -> bool:
            if not await _answers(worker):
                return False
            return sum((await metric(worker, "sluice_consumer_lag_messages")).values()) == 30

        await until(lag_shows, "lag of thirty messages")
        await server.start()
        await place.settled(positions)
        await place.reconciled()


async def _answers(worker: EmbeddedWorker) -> bool:
    try:
        return (await get(worker, "/livez")).status == 200
    except OSError:
        return False


async def test_only_tenants_that_ask_for_it_degrade(
    open_place: Open, server: EmbeddedTriton, tmp_path: Path
) -> None:
    """After its second the hasty tenant has unscanned verdicts; the others are scored later."""
    policy = tmp_path / "patience.toml"
    policy.write_text(_POLICY)
    async with open_place(SLUICE_POLICY__FILE=str(policy)) as place:
        worker = await place.start_worker()
        await server.kill()
        hasty = [{"tenant": "hasty"}, {"tenant": "hasty", "route": "lenient"}]
        patient = [{"tenant": "calm"}, {}]
        positions = await place.publish(
            place.record("full of hate", key=b"one partition", **fields)
            for pair in zip(patient, hasty, strict=True)
            for fields in pair
        )
        calm, quick = positions[0::2], positions[1::2]
        found = await place.settled(quick)
        assert set(found) == set(quick)
        assert (await metric(worker, "sluice_batch_messages_count")) == {(): 1.0}
        _assert_unscanned(found, quick)
        await place.no_commit_ahead()
        await server.start()
        found = await place.settled(positions)
        for position in calm:
            (verdict,) = found[position]
            assert isinstance(verdict, Verdict)
            assert (verdict.status, verdict.action) == (Status.SCORED, Action.BLOCK)
        report = await place.reconciled()
        assert report.total("repeats") == 0
        degraded = await metric(worker, "sluice_degraded_total")
        assert degraded == {("block", "unscanned"): 1.0, ("flag", "unscanned"): 1.0}


def _assert_unscanned(
    found: dict[Position, list[Verdict | DeadLetter]], positions: list[Position]
) -> None:
    verdicts = [found[position][0] for position in positions]
    for verdict, action in zip(verdicts, (Action.BLOCK, Action.FLAG), strict=True):
        assert isinstance(verdict, Verdict)
        assert (verdict.status, verdict.action) == (Status.UNSCANNED, action)
        assert (dict(verdict.scores), verdict.guards, verdict.flagged) == ({}, (), ())
        assert verdict.scored_at is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r'(?<=\[digests\]\nmodel = ")sha256:\w+', "sha256:" + "0" * 64, "serves guard tiny"),
        (r"S9 = 0\.\d+", "S9 = 0.75", "guard tiny scores golden text 2"),
    ],
    ids=["digest", "golden"],
)
async def test_a_guard_that_is_not_what_its_card_says_stops_the_worker(
    open_place: Open, tmp_path: Path, old: str, new: str, said: str
) -> None:
    """Exit code 2; guard and remedy are named; nothing is published or acknowledged."""
    repository = tiny_guard.make(tmp_path / "other")
    card = repository / "tiny" / "card.toml"
    text, count = re.subn(old, new, card.read_text())
    assert count == 1
    card.write_text(text)
    async with open_place(repository) as place:
        await place.texts(*(f"text {n}" for n in range(20)))
        worker = place.worker()
        await worker.launch()
        assert await ended(worker, within_s=30.0) == 2
        log = worker.log.read_text()
        assert said in log
        assert "model repository" in log or "deploy one release" in log
        assert "Traceback" not in log
        assert await place.outcomes() == {}
        assert not any((await place.committed()).values())


async def test_poison_is_buried_and_everything_else_is_scored(open_place: Open) -> None:
    """Texts that kill the guard, that it fails on, or that score NaN: three dead letters."""
    async with open_place(SLUICE_WORKER__POISON_ATTEMPTS="2") as place:
        worker = await place.start_worker()
        bad = await place.texts("please die", "a fault", "one nan", key=b"one partition")
        good = await place.texts(*(f"text {n}" for n in range(40)))
        found = await place.settled([*bad, *good], within_s=60.0)
        for position in bad:
            (letter,) = found[position]
            assert isinstance(letter, DeadLetter)
            assert letter.reason == "guard-refused"
            assert "alone" in letter.detail
        for position in good:
            assert isinstance(found[position][0], Verdict)
        log = worker.log.read_text()
        assert "guard-reload" in log
        assert "guard-reload-failed" not in log
        report = await place.reconciled()
        assert report.total("repeats") == 0
        await until(worker.ready, "readiness")


async def test_a_worker_that_is_full_for_long_stays_in_its_group(
    open_place: Open, server: EmbeddedTriton
) -> None:
    """Every partition paused for longer than polls may be apart: it goes on with the guard."""
    async with open_place() as place:
        await server.kill()
        many = [
            place.record(f"text {n}", kind=kind, key=b"%d" % n)
            for n in range(6000)
            for kind in Kind
        ]
        positions = await place.publish(many)
        worker = place.worker(
            BROKER_MAX_POLL_INTERVAL="2",
            SLUICE_WORKER__MESSAGES_IN_FLIGHT="64",
            SLUICE_WORKER__BUFFER_MESSAGES="64",
        )
        await worker.launch()
        await until(lambda: _answers(worker), "the health server's answer")
        await asyncio.sleep(8.0)
        await server.start()
        await place.settled(positions, within_s=60.0)
        await place.reconciled()
        assert worker.log.read_text().count("rebalancing") == 1
