"""Audit events out of Kafka into a file, in a slice whose bounds are fixed at the start."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from pipeline import audit_log, audit_rows, codec
from pipeline.adapters.kafka import KafkaReader, Slice
from pipeline.audit_log import Entry, Passed
from pipeline.errors import KeyUnavailable, Misconfigured, Unopenable
from pipeline.events import Retention
from pipeline.export_file import Sink
from pipeline.sealing import Opened, Opener, opened
from pipeline.selection import Selection

OPENED: Final = "opened"
NOT_KEPT: Final = "not kept"
ERASED: Final = "key erased"
NO_KEY: Final = "key not in the folder"
BROKEN: Final = "seal broken"
NO_FOLDER: Final = "no key folder"


@dataclass(slots=True, kw_only=True)
class Tally:
    """What an export has come to so far; `texts` only where texts were asked for."""

    total: int = 0
    rows: int = 0
    passed: Passed = field(default_factory=Passed)
    actions: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """That texts are wanted, and what opens sealed ones; None where there is no key folder."""

    opener: Opener | None


async def export(
    reader: KafkaReader,
    topic: str,
    slices: list[Slice],
    schemas: codec.Schemas,
    *,
    selection: Selection,
    sink: Sink,
    tally: Tally,
    texts: Texts | None = None,
) -> None:
    """Give the sink a row for every event that is selected; `tally` counts as it goes."""
    tally.total = sum(part.end - part.start for part in slices)
    entries = audit_log.read(reader, topic, slices, schemas, selection, passed=tally.passed)
    async for entry in entries:
        found, problem = _texts(entry, texts, tally)
        sink.add(
            audit_rows.row(
                entry.event,
                at=entry.at,
                timestamp_ms=entry.timestamp_ms,
                texts=found,
                problem=problem,
            )
        )
        tally.rows += 1
        tally.actions[entry.event.verdict.action.value] += 1
        tally.statuses[entry.event.verdict.status.value] += 1


def _texts(entry: Entry, texts: Texts | None, tally: Tally) -> tuple[Opened | None, str | None]:
    """An event's texts, or the problem with them; neither where none are wanted."""
    if texts is None:
        return None, None
    if entry.event.retention not in (Retention.PLAIN, Retention.ENCRYPTED):
        tally.texts[NOT_KEPT] += 1
        return None, None
    try:
        found = opened(entry.event, texts.opener)
    except (Unopenable, Misconfigured) as error:
        problem = _problem(error)
        tally.texts[problem] += 1
        return None, problem
    tally.texts[OPENED] += 1
    return found, None


def _problem(error: Unopenable | Misconfigured) -> str:
    if isinstance(error, KeyUnavailable):
        return ERASED if error.erased else NO_KEY
    return NO_FOLDER if isinstance(error, Misconfigured) else BROKEN
