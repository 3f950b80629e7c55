"""`sluice publish`, `verdicts` and `reconcile` as people run them, on a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.adapters.kafka import KafkaReader
from pipeline.client import Client
from pipeline.embedded import EmbeddedKafka
from pipeline.settings import Settings
from tests.support.answering import own_topics, worker

pytestmark = pytest.mark.timeout(180)

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return orjson.loads(self.out)


@pytest.fixture
async def settings(kafka: EmbeddedKafka) -> Settings:
    """Five topics of the test's own."""
    return await own_topics(kafka.bootstrap_servers)


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make a command use these settings."""
    topics = settings.topics.model_dump(include={"prompts", "completions", "verdicts", "audit",
                                                 "dead_letters"})  # fmt: skip
    named = {f"SLUICE_TOPICS__{role.upper()}": name for role, name in topics.items()}
    servers = settings.kafka.bootstrap_servers
    return {**os.environ, **named, "SLUICE_KAFKA__BOOTSTRAP_SERVERS": servers}


async def begin(settings: Settings, *arguments: str) -> asyncio.subprocess.Process:
    """Start a command with pipes."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pipeline", *arguments, env=environment(settings),
        stdin=pipe, stdout=pipe, stderr=pipe,
    )  # fmt: skip


async def finish(process: asyncio.subprocess.Process, given: bytes = b"") -> Ended:
    """Give it stdin and wait for its end."""
    async with asyncio.timeout(_DEADLINE_S):
        out, err = await process.communicate(given)
    return Ended(code=process.returncode or 0, out=out.decode(), err=err.decode())


async def sluice(settings: Settings, *arguments: str, given: bytes = b"") -> Ended:
    """Run a command to its end."""
    return await finish(await begin(settings, *arguments), given)


async def inputs(settings: Settings) -> int:
    """How many prompts were published."""
    async with KafkaReader(settings.kafka) as reader:
        return sum(part.end - part.start for part in await reader.bounds(settings.topics.prompts))


async def test_from_lines_to_verdicts_to_the_balance(settings: Settings, tmp_path: Path) -> None:
    """Publish with --wait, read back with filters, reconcile: one story."""
    lines = tmp_path / "lines.jsonl"
    texts = ["fine", "bad", "", "also bad"]
    lines.write_bytes(b"\n".join(orjson.dumps({"text": text, "x": 1}) for text in texts))
    async with worker(settings, times=2):
        done = await sluice(settings, "publish", str(lines), "--tenant", "acme", "--wait")
    assert done.code == 0
    assert len(done.out.splitlines()) == 1 + len(texts)
    assert done.out.count("block") == 2
    assert "dead letter: empty-text" in done.out
    assert "published 4" in done.err
    assert "not sent: x" in done.err

    blocked = await sluice(settings, "verdicts", "--action", "block", "--tenant", "acme", "--json")
    assert [orjson.loads(line)["action"] for line in blocked.out.splitlines()] == ["block"] * 2
    assert "2 verdicts, 3 repeats dropped" in blocked.err
    table = await sluice(settings, "verdicts", "--from", "-1h", "--limit", "1")
    assert (table.code, len(table.out.splitlines())) == (0, 2)
    assert (await sluice(settings, "verdicts", "--tenant", "nobody")).code == 4
    wrong = await sluice(settings, "verdicts", "--from", "yesterday")
    assert wrong.code == 2
    assert "'yesterday' is not a time" in wrong.err

    balance = await sluice(settings, "reconcile", "--wait", "10", "--json")
    counts = {key: balance.json[key] for key in ("inputs", "verdicts", "dead_letters", "missing")}
    assert counts == {"inputs": 4, "verdicts": 3, "dead_letters": 1, "missing": 0}
    assert (balance.code, balance.json["repeats"]) == (0, 4)


async def test_inputs_without_an_outcome_do_not_balance(settings: Settings) -> None:
    """The report names positions and exits with 1."""
    async with Client(settings, watch=False) as client:
        position = await client.publish(client.prompt("hello"))
    done = await sluice(settings, "reconcile")
    assert done.code == 1
    assert f"missing: {position}" in done.err
    assert "not balanced" in done.out


async def test_a_bad_line_stops_after_what_came_before(settings: Settings) -> None:
    """It names file, line and field, and how many were published; or is passed over."""
    given = b'{"text": "a"}\n{"text": 5}\n{"text": "b"}\n'
    stopped = await sluice(settings, "publish", given=given)
    assert (stopped.code, stopped.out) == (2, "")
    assert "stdin:2: the field 'text' is of type int" in stopped.err
    assert "published 1" in stopped.err
    skipped = await sluice(settings, "publish", "--skip-bad", "--json", given=given)
    assert (skipped.code, skipped.json["published"], skipped.json["skipped"]) == (0, 2, 1)
    assert await inputs(settings) == 3


async def test_ctrl_c_flushes_and_reports(settings: Settings) -> None:
    """What it says was published is in Kafka, to the message; it exits with 130."""
    process = await begin(settings, "publish", "--rate", "200", "--json")
    assert process.stdin is not None
    process.stdin.write(b"".join(b"line %d\n" % number for number in range(5000)))
    async with asyncio.timeout(_DEADLINE_S):
        while await inputs(settings) < 20:
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    done = await finish(process)
    assert (done.code, done.json["interrupted"]) == (130, True)
    assert done.json["published"] == await inputs(settings) < 5000


async def test_without_a_worker_waiting_says_so(settings: Settings) -> None:
    """Published messages stay published; the exit code is 1."""
    done = await sluice(settings, "publish", "--wait", "--timeout", "0.5", given=b"hello\n")
    assert done.code == 1
    assert "1 message has no verdict after 0.5 s" in done.err
    assert await inputs(settings) == 1


async def test_following_shows_verdicts_as_they_come(settings: Settings) -> None:
    """Until the limit, or Ctrl-C, which ends it in order."""
    limited = await begin(settings, "verdicts", "-f", "--from", "-1h", "--limit", "3", "--json")
    endless = await begin(settings, "verdicts", "-f", "--from", "-1h", "--json")
    async with worker(settings), Client(settings) as client:
        sent = [await client.moderate(client.prompt(f"m{n}")) for n in range(3)]
    shown = await finish(limited)
    ids = {orjson.loads(line)["verdict_id"] for line in shown.out.splitlines()}
    assert (shown.code, ids) == (0, {verdict.verdict_id for verdict in sent})
    assert endless.stdout is not None
    async with asyncio.timeout(_DEADLINE_S):
        for _ in sent:
            await endless.stdout.readline()
    endless.send_signal(signal.SIGINT)
    assert (await finish(endless)).code == 0
