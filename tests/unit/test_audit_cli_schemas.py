"""`sluice audit export` and `audit show` read events under the ids that a registry gave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline import codec, schema_ids, wiring_policy
from pipeline.adapters.kafka import Record, Slice
from pipeline.cli import audit_export, audit_show
from pipeline.events import AuditEvent
from pipeline.ranges import Range
from pipeline.settings import Settings
from tests.support.cli import Sluice

from . import replays

OF_REGISTRY = 1234


class _Log:
    """An audit topic with one event under the registry's id."""

    def __init__(self, event: AuditEvent, schemas: codec.Schemas) -> None:
        schemas.use_id(codec.AUDIT, OF_REGISTRY)
        self._event, self._frame = event, codec.encode_audit(event, schemas)

    async def bounds(self, topic: str) -> list[Slice]:
        """One record."""
        return [Slice(partition=0, start=0, end=1)]

    async def within(self, topic: str, span: Range) -> list[Slice]:
        """All of it."""
        return await self.bounds(topic)

    async def read(self, topic: str, slices: Sequence[Slice]) -> AsyncIterator[Record]:
        """The record."""
        verdict = self._event.verdict
        yield Record(
            topic=topic,
            partition=0,
            offset=0,
            timestamp_ms=int(verdict.emitted_at.timestamp() * 1000),
            key=verdict.message_id.encode(),
            value=self._frame,
            headers=(("ce_id", verdict.verdict_id.encode()),),
        )


@pytest.fixture
def event(schemas: codec.Schemas, monkeypatch: pytest.MonkeyPatch) -> AuditEvent:
    """The event of a log that both commands read, with a registry that knows its id."""
    made = replays.event()
    log = _Log(made, schemas)

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[_Log]:
        yield log

    async def adopt(found: codec.Schemas, settings: Settings) -> None:
        found.use_id(codec.AUDIT, OF_REGISTRY)

    async def lookup(settings: Settings) -> Any:
        return {}.get

    modules: tuple[ModuleType, ...] = (audit_export, audit_show)
    for module in modules:
        monkeypatch.setattr(module, "open_reader", opened)
    monkeypatch.setattr(schema_ids, "adopt", adopt)
    monkeypatch.setattr(wiring_policy, "lookup", lookup)
    return made


@pytest.fixture
def sluice(capfdbinary: pytest.CaptureFixture[bytes]) -> Sluice:
    """The command."""
    return Sluice(capfdbinary)


def test_an_export_reads_them(sluice: Sluice, event: AuditEvent, tmp_path: Path) -> None:
    """The event is a row, not an unreadable record."""
    out = tmp_path / "out.jsonl"
    done = sluice("audit", "export", "--out", str(out), "--json")
    assert (done.code, done.json["rows"], done.json["unreadable"]) == (0, 1, 0)
    assert event.verdict.verdict_id in out.read_text()


def test_a_message_s_story_is_told(sluice: Sluice, event: AuditEvent) -> None:
    """The event is found by its message id."""
    done = sluice("audit", "show", event.verdict.message_id, "--json")
    assert done.code == 0
    assert done.json["audit_position"].endswith(":0:0")
