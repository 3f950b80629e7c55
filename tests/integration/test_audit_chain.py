"""The audit log of real workers is proved, whatever they went through; tampering is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from pipeline import audit_check
from pipeline.audit_proof import Fault, Proof
from pipeline.chain import ChainState
from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.ranges import Range
from pipeline.settings import Settings, home
from pipeline.signing import Checker, create_key
from tests.support import places, tampering
from tests.support.cli import Sluice
from tests.support.places import Place, get, metric, until

Open = Callable[..., AbstractAsyncContextManager[Place]]


@pytest.fixture
def open_place(
    kafka: EmbeddedKafka, triton: EmbeddedTriton, tiny_repository: Path, tmp_path: Path
) -> Open:
    """Opens a place on the shared broker and server; heads are written down twice a second."""

    def opened(broker: EmbeddedKafka = kafka, **variables: str) -> places.Opening:
        return places.open_place(
            tmp_path, kafka=broker.bootstrap_servers, triton=triton.grpc_address,
            repository=tiny_repository, **{"SLUICE_AUDIT__CHECKPOINT_S": "0.5", **variables},
        )  # fmt: skip

    return opened


async def _proof(settings: Settings) -> Proof:
    return await audit_check.verify(settings, Range())


def _states(proof: Proof) -> set[str]:
    return {chain.head.state.value for chain in proof.chains if chain.head}


async def _publish(place: Place, count: int) -> None:
    await place.publish([place.record(f"text {n}") for n in range(count)])


async def test_restarts_kills_and_rebalances_keep_the_log_provable(open_place: Open) -> None:
    """Two workers, one stopped in order, one killed under load and started again."""
    async with open_place() as place:
        first, second = await place.start_worker(), await place.start_worker()
        await _publish(place, 200)
        await until(lambda: _chained(first, 1), "audit events of the first worker")
        await first.stop()
        await place.start_worker()
        await _publish(place, 400)
        await until(lambda: _chained(second, 20), "audit events of the second worker")
        await second.kill()
        await second.start()
        await _publish(place, 50)
        await place.reconciled(within_s=60.0)
        proof = await _proof(place.settings)
        assert proof.proved, proof.breaks
        assert proof.events == len(await place.audits()) >= 650
        assert {chain.writer for chain in proof.chains} == {"worker-1", "worker-2", "worker-3"}
        starts = {c.chain.split("/")[1] for c in proof.chains if c.writer == "worker-2"}
        assert len(starts) == 2
        assert {"open", "closed"} <= _states(proof)


async def test_a_broker_that_goes_away_under_load_keeps_the_log_provable(
    open_place: Open, tmp_path: Path
) -> None:
    """Killed while the worker publishes, back after some seconds."""
    async with EmbeddedKafka(home(), tmp_path / "kafka") as broker, open_place(broker) as place:
        worker = await place.start_worker()
        await _publish(place, 600)
        await until(lambda: _chained(worker, 50), "audit events")
        await broker.kill()
        await asyncio.sleep(3.0)
        await broker.start()
        await place.reconciled(within_s=90.0)
        proof = await _proof(place.settings)
        assert proof.proved, proof.breaks
        assert proof.events == len(await place.audits()) >= 600
        await worker.stop()
        assert (await _proof(place.settings)).proved


async def test_each_manipulation_is_named(
    open_place: Open, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A dropped record, a changed score, a swapped pair and a truncated tail."""
    async with open_place() as place:
        worker = await place.start_worker()
        await _publish(place, 60)
        await place.reconciled()
        await worker.stop()
        whole = await _proof(place.settings)
        assert whole.proved
        assert _states(whole) == {ChainState.CLOSED}
        partition = max(whole.chains, key=lambda chain: chain.events).partition
        length = sum(c.events for c in whole.chains if c.partition == partition)
        untouched = await tampering.copy(place.settings, "same", None, partition=partition)
        assert (await _proof(untouched)).proved
        middle = length // 2
        for spoil, fault, offset in (
            (tampering.dropped, Fault.MISSING, middle),
            (tampering.other_score, Fault.CHANGED, middle),
            (tampering.swapped, Fault.REORDERED, middle + 1),
            (tampering.truncated, Fault.TRUNCATED, length - 4),
        ):
            there = await tampering.copy(place.settings, spoil.__name__, spoil, partition=partition)
            (found,) = (await _proof(there)).breaks
            assert (found.fault, found.partition, found.offset) == (fault, partition, offset)
        # The last of them once more, as a person would ask.
        _point_at(there, monkeypatch)
        sluice = Sluice(capfdbinary)
        done = await asyncio.to_thread(sluice, "audit", "verify")
        assert done.code == 1
        assert f"truncated at partition {partition} offset {length - 4}" in done.out
        document = await asyncio.to_thread(sluice, "audit", "verify", "--json")
        assert document.json["breaks"][0]["fault"] == "truncated"
        _point_at(place.settings, monkeypatch)
        assert (await asyncio.to_thread(sluice, "audit", "verify")).code == 0
        later = await asyncio.to_thread(sluice, "audit", "verify", "--from", "-1ms")
        assert later.code == 4
        listed = await asyncio.to_thread(sluice, "audit", "heads", "--json")
        assert len(listed.out.splitlines()) == len(whole.chains)


async def test_signed_heads_are_proved_by_their_key_alone(open_place: Open, tmp_path: Path) -> None:
    """Heads that another key signed are a break."""
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    checkers = []
    for path in (key, other):
        (tmp_path / "public.pem").write_text(create_key(path)[0])
        checkers.append(Checker.load(tmp_path / "public.pem"))
    async with open_place(SLUICE_AUDIT__SIGNING_KEY_FILE=str(key)) as place:
        worker = await place.start_worker()
        await _publish(place, 20)
        await place.reconciled()
        await worker.stop()
        mine = await audit_check.verify(place.settings, Range(), checkers[:1])
        assert mine.proved, mine.breaks
        assert mine.events == 20
        others = await audit_check.verify(place.settings, Range(), checkers[1:])
        assert {found.fault for found in others.breaks} == {Fault.BAD_SIGNATURE}


async def test_a_heads_topic_that_is_away_delays_no_verdict(open_place: Open) -> None:
    """Verdicts go out; the worker says that its heads cannot be written."""
    async with open_place() as place:
        worker = await place.start_worker(SLUICE_KAFKA__REQUEST_TIMEOUT_S="3")
        await places.delete_topic(place.settings, place.settings.topics.chain_heads)
        await _publish(place, 50)
        await place.reconciled()
        await until(lambda: _failing(worker), "errors of chain heads", within_s=30.0)
        assert (await get(worker, "/livez")).status == 200


async def _failing(worker: EmbeddedWorker) -> bool:
    return bool(await metric(worker, "sluice_chain_head_errors_total"))


async def _chained(worker: EmbeddedWorker, at_least: int) -> bool:
    return sum((await metric(worker, "sluice_audit_events_total")).values()) >= at_least


def _point_at(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA__BOOTSTRAP_SERVERS", settings.kafka.bootstrap_servers)
    monkeypatch.setenv("SLUICE_TOPICS__AUDIT", settings.topics.audit)
    monkeypatch.setenv("SLUICE_TOPICS__CHAIN_HEADS", settings.topics.chain_heads)
