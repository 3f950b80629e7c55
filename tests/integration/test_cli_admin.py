"""The administrative commands against the real broker and the real server."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline import codec, headers, settings, wiring
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader, Record
from pipeline.adapters.kafka_topics import ROLES
from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.loopback import free_ports
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.events import DeadLetter, Position
from pipeline.ports import Outgoing
from tests.support.cli import Done, Sluice

NOBODY = "127.0.0.1:9"


@pytest.fixture
def sluice(
    capfdbinary: pytest.CaptureFixture[bytes],
    kafka: EmbeddedKafka,
    tiny_repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Sluice:
    """The command, with the shared broker, topics of the test's own and no Triton."""
    name = secrets.token_hex(4)
    for role in ROLES:
        monkeypatch.setenv(f"SLUICE_TOPICS__{role.upper()}", f"{role}-{name}")
    monkeypatch.setenv("SLUICE_TOPICS__PARTITIONS", "2")
    monkeypatch.setenv("SLUICE_KAFKA__GROUP", f"group-{name}")
    monkeypatch.setenv("SLUICE_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("SLUICE_GUARDS__REPOSITORY", str(tiny_repository))
    monkeypatch.setenv("SLUICE_GUARDS__NAMES", '["tiny"]')
    monkeypatch.setenv("SLUICE_TRITON__URL", NOBODY)
    monkeypatch.setenv("SLUICE_WORKER__HTTP_PORT", "9")
    return Sluice(capfdbinary)


@pytest.fixture
def topics(sluice: Sluice) -> settings.TopicSettings:
    """The test's topics, made."""
    assert sluice("topics", "create").code == 0
    return settings.load().topics


@pytest.fixture
def letters(topics: settings.TopicSettings) -> list[DeadLetter]:
    """Three dead letters and one foreign record, in their topic."""
    made = [
        _letter(topics, 0, "bad-json", b'{"text": "secret words'),
        _letter(topics, 1, "not-framed", b"\xff" * 200),
        _letter(topics, 2, "bad-json", b"[]"),
    ]
    records = [
        Outgoing(
            topic=topics.dead_letters,
            key=letter.key,
            value=letter.value,
            headers=headers.provenance(letter),
        )
        for letter in made
    ]
    foreign = Outgoing(topic=topics.dead_letters, key=None, value=b"foreign", headers=())
    asyncio.run(_publish([*records, foreign]))
    return made


def _letter(topics: settings.TopicSettings, offset: int, reason: str, value: bytes) -> DeadLetter:
    return DeadLetter(
        position=Position(topic=topics.prompts, partition=0, offset=offset),
        key=b"conversation",
        value=value,
        headers=(("content-type", b"application/json"), ("x-odd", b"[red]\x1b[31m")),
        reason=reason,
        detail="the value is not JSON. Send one JSON object",
        failed_at=datetime.now(UTC),
    )


async def _publish(records: Sequence[Outgoing]) -> None:
    async with KafkaPublisher(settings.load().kafka, max_message_bytes=10**6) as publisher:
        await publisher.publish(records)


async def _read(topic: str) -> list[Record]:
    async with KafkaReader(settings.load().kafka) as reader:
        return [record async for record in reader.read(topic, await reader.bounds(topic))]


def _rows(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def test_topics_are_created_once(sluice: Sluice) -> None:
    """The first call creates all of them, the second none, and both say so."""
    first = sluice("topics", "create", "--json").json["topics"]
    assert [topic["created"] for topic in first] == [True] * len(ROLES)
    second = sluice("topics", "create", "--json").json["topics"]
    assert [topic["created"] for topic in second] == [False] * len(ROLES)


def test_topics_check_passes_what_create_made(
    sluice: Sluice, topics: settings.TopicSettings
) -> None:
    """What is wanted is what is found: exit 0."""
    assert sluice("topics", "check").code == 0


def test_topics_check_names_what_is_missing(sluice: Sluice) -> None:
    """Exit 1 and the command that repairs it."""
    done = sluice("topics", "check")
    assert done.code == 1
    assert "sluice topics create" in done.err


def test_topics_check_names_each_difference(
    sluice: Sluice, topics: settings.TopicSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions and size limit that differ from the settings: exit 1."""
    monkeypatch.setenv("SLUICE_TOPICS__PARTITIONS", "3")
    monkeypatch.setenv("SLUICE_TOPICS__MAX_MESSAGE_BYTES", str(12 * 1024**2))
    done = sluice("topics", "check", "--json")
    assert done.code == 1
    differ = {each["name"] for each in done.json["settings"] if not each["ok"]}
    assert differ == {"partitions", "max_message_bytes"}


@pytest.mark.parametrize(
    "command", [("topics", "create"), ("topics", "check"), ("dlq", "ls"), ("dlq", "show", "p:0:0")]
)
def test_a_broker_that_is_away_exits_3(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """The error names its address."""
    monkeypatch.setenv("SLUICE_KAFKA__BOOTSTRAP_SERVERS", NOBODY)
    done = sluice(*command)
    assert done.code == 3
    assert NOBODY in done.err
    assert "Traceback" not in done.err


def test_dlq_ls_lists_dead_letters_and_passes_over_others(
    sluice: Sluice, letters: list[DeadLetter]
) -> None:
    """One row a dead letter, oldest first, without its text."""
    done = sluice("dlq", "ls", "--json")
    assert [row["position"] for row in _rows(done)] == [str(each.position) for each in letters]
    assert [row["size_bytes"] for row in _rows(done)] == [22, 200, 2]
    assert "secret" not in done.out + sluice("dlq", "ls").out


def test_dlq_ls_filters_by_reason_and_time(sluice: Sluice, letters: list[DeadLetter]) -> None:
    """--reason and --from/--to narrow the list."""
    assert len(_rows(sluice("dlq", "ls", "--json", "--reason", "bad-json"))) == 2
    assert len(_rows(sluice("dlq", "ls", "--json", "--from", "-1h"))) == 3
    assert _rows(sluice("dlq", "ls", "--json", "--to", "-1h")) == []
    assert sluice("dlq", "ls", "--from", "soon").code == 2


def test_dlq_ls_of_none_says_so(sluice: Sluice, topics: settings.TopicSettings) -> None:
    """An empty topic is no error."""
    done = sluice("dlq", "ls")
    assert (done.code, done.out) == (0, "")
    assert "no dead letters" in done.err


def test_dlq_show_tells_why_and_what_to_do(sluice: Sluice, letters: list[DeadLetter]) -> None:
    """Everything about one letter; no byte of it steers the terminal."""
    done = sluice("dlq", "show", str(letters[1].position))
    for part in ("not-framed", "what to do", "conversation", "application/json", "[red]\\x1b[31m"):
        assert part in done.out
    assert "\x1b" not in done.out
    assert done.out.count("ff ff") == 4 * 8


def test_dlq_show_prints_the_text_only_when_asked(
    sluice: Sluice, letters: list[DeadLetter]
) -> None:
    """The document holds the text under --show-text alone."""
    row = _rows(sluice("dlq", "ls", "--json"))[0]
    where = row["dead_letter"].replace(settings.load().topics.dead_letters, "dlq")
    assert "text" not in sluice("dlq", "show", where, "--json").json
    shown = sluice("dlq", "show", where, "--json", "--show-text").json
    assert shown["text"] == '{"text": "secret words'
    assert "secret words" in sluice("dlq", "show", where, "--show-text").out


def test_dlq_show_of_nothing_exits_4(sluice: Sluice, letters: list[DeadLetter]) -> None:
    """A position without a dead letter."""
    assert sluice("dlq", "show", "nowhere:0:0").code == 4


def test_dlq_retry_sends_the_original_and_counts_on(
    sluice: Sluice, topics: settings.TopicSettings, letters: list[DeadLetter]
) -> None:
    """Key, value and headers as first published, one more attempt; nothing is deleted."""
    done = sluice("dlq", "retry", str(letters[0].position), "--yes", "--json")
    assert (done.code, done.json["sent"]) == (0, 1)
    (record,) = asyncio.run(_read(topics.prompts))
    assert (record.key, record.value) == (letters[0].key, letters[0].value)
    assert record.headers[:2] == letters[0].headers
    assert headers.attempts(record.headers) == 1
    assert len(_rows(sluice("dlq", "ls", "--json"))) == 3


def test_dlq_retry_by_reason_and_all(
    sluice: Sluice, topics: settings.TopicSettings, letters: list[DeadLetter]
) -> None:
    """--reason sends those, --all sends every one."""
    assert sluice("dlq", "retry", "--reason", "bad-json", "--yes", "--json").json["sent"] == 2
    assert sluice("dlq", "retry", "--all", "--yes", "--json").json["sent"] == 3
    assert len(asyncio.run(_read(topics.prompts))) == 5


def test_dlq_retry_asks_first(
    sluice: Sluice, topics: settings.TopicSettings, letters: list[DeadLetter]
) -> None:
    """Without --yes and without a person, and with --dry-run, nothing is sent."""
    assert sluice("dlq", "retry", "--all").code == 2
    assert sluice("dlq", "retry", "--all", "--dry-run", "--json").json["chosen"] == 3
    assert asyncio.run(_read(topics.prompts)) == []


@pytest.mark.parametrize("choice", [(), ("--all", "--reason", "bad-json"), ("p:0:1", "--all")])
def test_dlq_retry_needs_one_choice(sluice: Sluice, choice: tuple[str, ...]) -> None:
    """Positions, a reason or all: exactly one of them."""
    assert sluice("dlq", "retry", *choice, "--yes").code == 2


def test_dlq_retry_of_nothing_exits_4(sluice: Sluice, topics: settings.TopicSettings) -> None:
    """Nothing to do."""
    assert sluice("dlq", "retry", "--all", "--yes").code == 4


@pytest.fixture
def worker(
    topics: settings.TopicSettings,
    triton: EmbeddedTriton,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[EmbeddedWorker]:
    """A real worker on the test's topics, configured as the command is."""
    monkeypatch.setenv("SLUICE_TRITON__URL", triton.grpc_address)
    (port,) = free_ports(1)
    monkeypatch.setenv("SLUICE_WORKER__HTTP_PORT", str(port))
    made = EmbeddedWorker("w", port=port, log=tmp_path / "worker.log", environ=os.environ)
    asyncio.run(made.start())
    yield made
    asyncio.run(made.stop())


async def _until_lettered(topic: str, count: int) -> None:
    """Return once the dead-letter topic holds so many records."""
    async with asyncio.timeout(30):
        async with KafkaReader(settings.load().kafka) as reader:
            while sum(part.end for part in await reader.bounds(topic)) < count:
                await asyncio.sleep(0.05)


def test_a_retried_message_is_judged_again_and_counted(
    sluice: Sluice, topics: settings.TopicSettings, worker: EmbeddedWorker
) -> None:
    """What fails again is one more attempt; a repeated --all sends it once; doctor is well."""
    garbage = Outgoing(topic=topics.prompts, key=b"c", value=b"\x01garbage", headers=())
    asyncio.run(_publish([garbage]))
    for attempts in (1, 2, 3):
        asyncio.run(_until_lettered(topics.dead_letters, attempts))
        last = _rows(sluice("dlq", "ls", "--json"))[-1]
        assert (last["reason"], last["attempts"]) == ("not-framed", attempts)
        assert sluice("dlq", "retry", "--all", "--yes", "--json").json["sent"] == 1
    assert sluice("doctor").code == 0


def test_classify_asks_the_configured_triton(
    sluice: Sluice, triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real server judges; nothing is started beside it."""
    monkeypatch.setenv("SLUICE_TRITON__URL", triton.grpc_address)
    done = sluice("classify", "full of hate", "--json")
    assert done.code == 0
    assert done.json["scores"]["S10"] == pytest.approx(0.982, abs=0.001)
    assert done.json["action"] == "block"
    assert done.err == ""


def test_classify_judges_as_the_worker_would(
    sluice: Sluice, triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document decodes as a verdict of the schema."""
    monkeypatch.setenv("SLUICE_TRITON__URL", triton.grpc_address)
    document = sluice("classify", "a plain sentence", "--json").json
    fields = {field["name"] for field in wiring.load_schemas().by_name[codec.VERDICT]["fields"]}
    assert set(document) == fields


def test_classify_starts_a_triton_where_none_answers(sluice: Sluice) -> None:
    """A first try needs nothing running; a note on stderr says what happens."""
    done = sluice("classify", "full of hate")
    assert done.code == 0
    assert "starting the embedded one" in done.err
    assert "BLOCK" in done.out


def test_doctor_says_what_is_down_and_what_to_do(
    sluice: Sluice, topics: settings.TopicSettings
) -> None:
    """No Triton, no worker: exit 3, the rest is well."""
    done = sluice("doctor", "--json")
    states = {check["name"]: check["state"] for check in done.json["checks"]}
    assert done.code == 3
    assert states["kafka"] == states["topics"] == states["consumer lag"] == "ok"
    assert states["guard tiny in Triton"] == states["worker"] == "down"
    assert states["golden texts"] == "skipped"
    assert all(
        check["remedy"] for check in done.json["checks"] if check["state"] in ("down", "wrong")
    )


def test_doctor_asks_the_guard_for_its_golden_texts(
    sluice: Sluice, triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The served guard proves to be the one of the card; missing topics exit 2."""
    monkeypatch.setenv("SLUICE_TRITON__URL", triton.grpc_address)
    done = sluice("doctor")
    assert done.code == 2
    assert "2 score as the cards say" in done.out
    assert "sluice topics create" in done.out


def test_doctor_tells_of_calls_larger_than_a_guard_takes(
    sluice: Sluice, triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would be refused and cut in two, which nothing else shows."""
    monkeypatch.setenv("SLUICE_TRITON__URL", triton.grpc_address)
    monkeypatch.setenv("SLUICE_GUARDS__MAX_ROWS", "1000")
    checks = {check["name"]: check for check in sluice("doctor", "--json").json["checks"]}
    assert checks["guard tiny in Triton"]["state"] == "wrong"
    assert "guards.max_rows is 1000" in checks["guard tiny in Triton"]["detail"]
    assert "Set guards.max_rows = " in checks["guard tiny in Triton"]["remedy"]


def test_doctor_goes_on_after_a_wrong_setting(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is named, and what the embedded stack needs is still told."""
    monkeypatch.setenv("SLUICE_KAFKA__SESSION_TIMEOUT_S", "1")
    done = sluice("doctor")
    assert done.code == 2
    assert "session_timeout_s" in done.out
    assert "embedded: java" in done.out
