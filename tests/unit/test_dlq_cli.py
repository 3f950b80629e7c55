"""`sluice dlq retry`: what is chosen, what is left out, and where it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline import dlq, headers, wiring_admin
from pipeline.adapters.kafka import Record, Slice
from pipeline.cli.exits import Exit
from pipeline.errors import DependencyUnavailable
from pipeline.events import DeadLetter, Position
from pipeline.ports import Outgoing
from pipeline.settings import load
from tests.support.cli import Sluice

TOPICS = load().topics
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
BEGIN_MS = int(BEGIN.timestamp() * 1000)


@dataclass(slots=True)
class Log:
    """The dead-letter topic, one partition, a letter a minute; and what was sent."""

    records: list[Record] = field(default_factory=list)
    sent: list[Outgoing] = field(default_factory=list)
    takes: int = 10**6

    def add(self, offset: int, *, topic: str = TOPICS.prompts, **given: Any) -> DeadLetter:
        """Write the dead letter of an input; it may lie in any topic."""
        fields: dict[str, Any] = {"value": b"{oops", "headers": (), "reason": "bad-json"} | given
        letter = DeadLetter(
            position=Position(topic=topic, partition=0, offset=offset),
            key=b"k",
            detail="",
            failed_at=BEGIN + timedelta(minutes=len(self.records)),
            **fields,
        )
        self._append(letter)
        return letter

    def add_returned(self, first: DeadLetter, offset: int, *, reason: str) -> DeadLetter:
        """Write the dead letter of a message that was sent again and failed again."""
        record = dlq.again(first)
        attempts = headers.attempts(record.headers) + 1
        return self.add(offset, headers=record.headers, attempts=attempts, reason=reason)

    def _append(self, letter: DeadLetter) -> None:
        record = Record(
            topic=TOPICS.dead_letters,
            partition=0,
            offset=len(self.records),
            timestamp_ms=BEGIN_MS + 60_000 * len(self.records),
            key=letter.key,
            value=letter.value,
            headers=headers.provenance(letter),
        )
        self.records.append(record)

    async def bounds(self, topic: str) -> list[Slice]:
        """All of it."""
        return [Slice(partition=0, start=0, end=len(self.records))]

    async def offsets_at(self, topic: str, timestamp_ms: int) -> dict[int, int]:
        """The first offset that is not older."""
        return {0: sum(record.timestamp_ms < timestamp_ms for record in self.records)}

    async def read(self, topic: str, slices: Collection[Slice]) -> AsyncIterator[Record]:
        """The records of the slices."""
        for part in slices:
            for record in self.records[part.start : part.end]:
                yield record

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Keep what is sent, as long as there is room."""
        if len(self.sent) + len(records) > self.takes:
            raise DependencyUnavailable("the broker went away", remedy="")
        self.sent.extend(records)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """An empty dead-letter topic, in place of the broker."""
    made = Log()

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[Log]:
        yield made

    monkeypatch.setattr(wiring_admin.kafka_admin, "open_reader", opened)
    monkeypatch.setattr(wiring_admin, "KafkaPublisher", opened)
    return made


@pytest.fixture
def sluice(capfdbinary: pytest.CaptureFixture[bytes], log: Log) -> Sluice:
    """The command over that topic."""
    return Sluice(capfdbinary)


def _minute(number: int) -> str:
    return (BEGIN + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("topic", [TOPICS.policies, TOPICS.verdicts, "else\x1b[2Jwhere"])
def test_a_letter_leads_to_an_input_topic_or_nowhere(sluice: Sluice, log: Log, topic: str) -> None:
    """A forged one is listed, left out with a note, and named; the others are sent."""
    log.add(3, topic=topic, value=b"forged")
    log.add(7)
    log.add(8, topic=TOPICS.completions)
    done = sluice("dlq", "retry", "--all", "--yes", "--json")
    assert (done.code, done.json["chosen"], done.json["sent"]) == (0, 2, 2)
    assert [record.topic for record in log.sent] == [TOPICS.prompts, TOPICS.completions]
    assert f"{TOPICS.dead_letters}:0:0" in done.err
    assert f"{dlq.printable(topic)}:0:3" in done.err
    shown = sluice("dlq", "ls")
    assert f"{dlq.printable(topic)}:0:3" in shown.out
    assert "\x1b" not in done.err + shown.out
    assert sluice("dlq", "show", "dlq:0:0").code == 0


def test_nothing_is_sent_where_every_letter_leads_elsewhere(sluice: Sluice, log: Log) -> None:
    """There is nothing to confirm then."""
    log.add(3, topic=TOPICS.policies)
    assert sluice("dlq", "retry", "dlq:0:0", "--yes").code == Exit.EMPTY
    assert log.sent == []


def test_a_retry_that_fails_says_how_far_it_came(sluice: Sluice, log: Log) -> None:
    """What was sent stays sent: a second retry would send it again."""
    for offset in range(250):
        log.add(offset)
    log.takes = 200
    done = sluice("dlq", "retry", "--all", "--yes", "--json")
    assert (done.code, done.out, len(log.sent)) == (Exit.UNREACHABLE, "", 200)
    assert "sent at least 200 of 250 dead letters again" in done.err
    assert "the broker went away" in done.err


async def test_sending_checks_the_topic_once_more(log: Log) -> None:
    """The last step refuses by itself what lies in no input topic."""
    log.add(3, topic=TOPICS.policies)
    at = Position(topic=TOPICS.dead_letters, partition=0, offset=0)
    assert await wiring_admin.send_again(load(), {at}) == 0
    assert log.sent == []


def test_a_superseded_letter_is_not_sent_for_its_reason(sluice: Sluice, log: Log) -> None:
    """The message came back with another reason: by that one it is chosen, not by its first."""
    first = log.add(7, reason="unknown-tenant")
    log.add_returned(first, 20, reason="guard-refused")
    gone = sluice("dlq", "retry", "--reason", "unknown-tenant", "--yes")
    assert (gone.code, log.sent) == (Exit.EMPTY, [])
    assert sluice("dlq", "retry", str(first.position), "--yes").code == Exit.EMPTY
    done = sluice("dlq", "retry", "--reason", "guard-refused", "--yes", "--json")
    assert [row["position"] for row in done.json["letters"]] == [f"{TOPICS.prompts}:0:20"]
    assert headers.attempts(log.sent[0].headers) == 2


def test_a_time_range_leaves_the_others_out(sluice: Sluice, log: Log) -> None:
    """From one time on and before another, as `ls` has it."""
    for offset in range(4):
        log.add(offset)
    done = sluice(
        "dlq", "retry", "--all", "--from", _minute(1), "--to", _minute(3), "--yes", "--json"
    )
    rows = [row["position"] for row in done.json["letters"]]
    assert rows == [f"{TOPICS.prompts}:0:1", f"{TOPICS.prompts}:0:2"]
    assert len(log.sent) == 2
    assert sluice("dlq", "retry", "--all", "--from", "soon", "--yes").code == Exit.USAGE


def test_what_came_back_after_the_range_supersedes_what_lies_in_it(
    sluice: Sluice, log: Log
) -> None:
    """The end of a range does not bring an old letter back."""
    first = log.add(7)
    log.add_returned(first, 20, reason="bad-json")
    assert sluice("dlq", "retry", "--all", "--to", _minute(1), "--yes").code == Exit.EMPTY
    assert log.sent == []
