"""A log that another registry numbered: told as that, not as tampering, nor as an empty log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest

from pipeline import audit_check, chain_heads, codec, wiring_policy, wiring_replay
from pipeline.adapters.kafka import Record, Slice
from pipeline.cli import audit_export, audit_show
from pipeline.events import AuditEvent
from pipeline.ranges import Range
from pipeline.resources import shipped
from pipeline.settings import TopicSettings
from tests.support import golden_records as golden
from tests.support.cli import Done, Sluice

from . import replays
from .fakes import NOON

SAYS = "Set registry.url"
TOPICS = TopicSettings()


@dataclass
class _Log:
    """An audit topic and its heads, in memory; what is not there is empty."""

    frames: dict[str, list[bytes]]
    event: AuditEvent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def bounds(self, topic: str) -> list[Slice]:
        """One partition."""
        return [Slice(partition=0, start=0, end=len(self.frames.get(topic, ())))]

    async def within(self, topic: str, span: Range) -> list[Slice]:
        """All of it."""
        return await self.bounds(topic)

    async def read(self, topic: str, slices: Sequence[Slice]) -> AsyncIterator[Record]:
        """The records."""
        for offset, frame in enumerate(self.frames.get(topic, ())):
            yield Record(
                topic=topic, partition=0, offset=offset, timestamp_ms=1_000,
                key=self.event.verdict.message_id.encode(), value=frame, headers=(),
            )  # fmt: skip


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> _Log:
    """One event and one head, numbered as a fresh registry does: 4 and 6, which we ship as others.

    Every command reads it without that registry.
    """
    theirs = codec.load_schemas(shipped("schemas"))
    theirs.use_id(codec.AUDIT, 4)
    theirs.use_id(codec.CHAIN_HEAD, 6)
    event = replays.event()
    head = replace(golden.HEAD, partition=0, offset=0)
    made = _Log(
        {
            TOPICS.audit: [codec.encode_audit(event, theirs)],
            TOPICS.chain_heads: [chain_heads.encode(head, NOON, None, theirs)],
        },
        event,
    )
    for module in (audit_check, wiring_replay):
        monkeypatch.setattr(module, "KafkaReader", lambda *_, **__: made)
    for module in (audit_export, audit_show):
        monkeypatch.setattr(module, "open_reader", lambda *_: made)

    async def lookup(*_: object) -> object:
        return {}.get

    monkeypatch.setattr(wiring_policy, "lookup", lookup)
    return made


@pytest.fixture
def sluice(capfdbinary: pytest.CaptureFixture[bytes]) -> Sluice:
    """The command."""
    return Sluice(capfdbinary)


def _refused(done: Done, *, schema_id: int) -> bool:
    """Whether it ended as a wrong setting, and says which id showed that."""
    return done.code == 2 and SAYS in done.err and f"such as {schema_id}," in done.err


def test_verify_blames_the_setting_and_finds_no_break(sluice: Sluice, log: _Log) -> None:
    """Nothing was proved, and nothing is broken."""
    done = sluice("audit", "verify", "--json")
    assert _refused(done, schema_id=6)
    assert not done.out


def test_verify_blames_the_setting_by_the_events_alone(sluice: Sluice, log: _Log) -> None:
    """Before the first head was written down."""
    log.frames[TOPICS.chain_heads] = []
    assert _refused(sluice("audit", "verify"), schema_id=4)


def test_heads_blame_the_setting(sluice: Sluice, log: _Log) -> None:
    """A topic full of heads is not told as one without."""
    assert _refused(sluice("audit", "heads"), schema_id=6)


def test_show_blames_the_setting(sluice: Sluice, log: _Log) -> None:
    """The event is there, and cannot be read."""
    assert _refused(sluice("audit", "show", log.event.verdict.message_id), schema_id=4)


def test_an_id_that_is_nowhere_is_still_only_not_found(sluice: Sluice, log: _Log) -> None:
    """No record has that key: the setting has no part in it."""
    done = sluice("audit", "show", "another")
    assert (done.code, SAYS in done.err) == (4, False)


def test_an_export_and_a_replay_of_nothing_say_what_to_set(
    sluice: Sluice, log: _Log, tmp_path: Path
) -> None:
    """They end with 4 as before, and do not send people to their filters."""
    exported = sluice("audit", "export", "--out", str(tmp_path / "out.jsonl"))
    policy = tmp_path / "policy.toml"
    policy.write_text(replays.LOOSE)
    replayed = sluice("replay", "--policy", str(policy))
    for done in (exported, replayed):
        assert (done.code, SAYS in done.err) == (4, True)


def test_records_that_fit_no_schema_of_ours_were_changed(sluice: Sluice, log: _Log) -> None:
    """No number makes records of them."""
    log.frames = {topic: [each[:-9] for each in found] for topic, found in log.frames.items()}
    done = sluice("audit", "verify", "--json")
    assert (done.code, done.json["breaks"][0]["fault"]) == (1, "head-mismatch")


def test_an_event_was_changed_where_heads_can_be_read(
    sluice: Sluice, log: _Log, schemas: codec.Schemas
) -> None:
    """They show that the ids are those in use: another id in an event is somebody's doing."""
    head = replace(golden.HEAD, partition=0, offset=0)
    log.frames[TOPICS.chain_heads] = [chain_heads.encode(head, NOON, None, schemas)]
    done = sluice("audit", "verify", "--json")
    assert done.code == 1
    assert "changed" in {found["fault"] for found in done.json["breaks"]}
