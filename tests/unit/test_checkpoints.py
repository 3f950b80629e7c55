"""Specification of checkpoints: heads are written down, and never hold up a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import chain_heads, codec
from pipeline.audit_writer import ChainedLog
from pipeline.checkpoints import CHECK, Checkpoints
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.health import Health
from pipeline.ports import Outgoing
from pipeline.resources import shipped
from pipeline.signing import Checker, Signer, create_key

from .fakes import FakeClock, MemoryPublisher
from .test_audit_writer import UNLINKED

SCHEMAS = codec.load_schemas(shipped("schemas"))
AWAY = DependencyUnavailable("no answer", remedy="Start it")


class Bench:
    """A chained log and its checkpoints, in memory."""

    def __init__(self, signer: Signer | None = None) -> None:
        self.clock, self.health = FakeClock(), Health([CHECK])
        self.topic = MemoryPublisher()
        self.heads = Checkpoints(
            "heads", publisher=self.topic, schemas=SCHEMAS, signer=signer,
            health=self.health, clock=self.clock, every_s=5.0,
        )  # fmt: skip
        self.log = ChainedLog("audit", appender=MemoryPublisher(), schemas=SCHEMAS, worker_id="w-1")

    async def event(self) -> None:
        """One more event in the chain."""
        await self.log.write([Outgoing(topic="audit", key=b"k", value=UNLINKED, headers=())])

    def written(self) -> list[chain_heads.Checkpoint]:
        """The heads in the topic."""
        return [chain_heads.decode(r.value or b"", SCHEMAS) for r in self.topic.records]

    @property
    def ready(self) -> bool:
        """Whether the worker counts as ready."""
        return self.health.ready()[0]


async def test_a_head_is_written_when_there_is_something_new() -> None:
    """Once for each step, under the chain's id as key."""
    bench = Bench()
    for _ in range(2):
        await bench.event()
        assert await bench.heads.write(bench.log)
        assert await bench.heads.write(bench.log)
    assert [one.head.tip.sequence for one in bench.written()] == [0, 1]
    assert [record.key for record in bench.topic.records] == [
        one.head.chain.encode() for one in bench.written()
    ]


async def test_an_idle_worker_writes_no_head() -> None:
    """There is no chain to speak of."""
    bench = Bench()
    assert await bench.heads.write(bench.log)
    assert bench.topic.records == []
    assert bench.ready


async def test_heads_that_cannot_be_written_are_tried_again_and_told() -> None:
    """Readiness says so after half a minute, and recovers by itself."""
    bench = Bench()
    bench.topic.failures = [AWAY, AWAY]
    await bench.event()
    assert not await bench.heads.write(bench.log)
    assert bench.ready
    bench.clock.advance(31)
    assert not await bench.heads.write(bench.log)
    assert not bench.ready
    assert await bench.heads.write(bench.log)
    assert bench.ready
    assert len(bench.written()) == 1


async def test_the_last_head_of_a_closed_chain_says_so() -> None:
    """And the chain is forgotten then."""
    bench = Bench()
    await bench.event()
    await bench.log.close(1.0)
    assert await bench.heads.write(bench.log)
    assert [one.head.state for one in bench.written()] == ["closed"]
    assert bench.log.heads() == []


async def test_a_signed_head_is_accepted_by_its_key_and_by_no_other(tmp_path: Path) -> None:
    """A changed head loses its signature's worth."""
    public, name = create_key(tmp_path / "key.pem")
    (tmp_path / "public.pem").write_text(public)
    create_key(tmp_path / "other.pem")
    bench = Bench(Signer.load(tmp_path / "key.pem"))
    await bench.event()
    await bench.heads.write(bench.log)
    (head,) = bench.written()
    checker = Checker.load(tmp_path / "public.pem")
    assert (head.signer, checker.name) == (name, name)
    assert chain_heads.is_signed(head, [checker])
    other = Checker(Signer.load(tmp_path / "other.pem")._key.public_key())
    assert not chain_heads.is_signed(head, [other])
    record = codec.read(bench.topic.records[0].value or b"", codec.CHAIN_HEAD, SCHEMAS)
    forged = codec.write(record | {"sequence": 7}, codec.CHAIN_HEAD, SCHEMAS)
    assert not chain_heads.is_signed(chain_heads.decode(forged, SCHEMAS), [checker])


def test_a_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    """And is never overwritten."""
    create_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Misconfigured, match="cannot be made"):
        create_key(tmp_path / "key.pem")


@pytest.mark.parametrize("load", [Signer.load, Checker.load])
def test_what_is_no_key_is_named(load: object, tmp_path: Path) -> None:
    """By its file, with the remedy."""
    (tmp_path / "junk").write_text("junk")
    for name in ("junk", "missing"):
        with pytest.raises(Misconfigured, match=name):
            load(tmp_path / name)  # type: ignore[operator]
