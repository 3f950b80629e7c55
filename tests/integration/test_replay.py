"""`sluice replay` on the real broker, behind the real worker and the real server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline import codec, headers, policy_file
from pipeline.adapters.kafka_topics import create_topics
from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.events import Action, Kind
from pipeline.settings import TopicSettings
from tests.support.places import SCHEMAS, Place, as_variables, open_place

PLAIN = """
id = "of-the-day"
version = "1"
[default]
retention = "plain"
[default.prompt]
unsafe = { block = 0.9 }
injection = { flag = 0.5 }
[default.completion]
unsafe = { block = 0.9 }
[tenants.hush]
retention = "hash"
"""
STRICT = PLAIN.replace("of-the-day", "strict").replace("flag = 0.5", "block = 0.5")
TEXTS = ("a plain question", "inject this", "full of hate", "and a rather longer text " * 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the command ended."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return orjson.loads(self.out)


class Bench:
    """A place with a judged log, and the command."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.day, self.strict = folder / "day.toml", folder / "strict.toml"

    async def replay(self, *arguments: str, **variables: str) -> Ended:
        """Run `sluice replay` to its end."""
        own = self.place.settings
        given = {
            "kafka": {"bootstrap_servers": own.kafka.bootstrap_servers},
            "topics": own.topics.model_dump(),
            "triton": {"url": own.triton.url},
            "guards": {"repository": str(own.guards.repository), "names": ["tiny"]},
            "policy": {"file": str(self.day)},
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pipeline", "replay", *arguments,
            env={**os.environ, **as_variables(given), **variables},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return Ended(code=process.returncode or 0, out=out, err=err.decode())


@pytest.fixture(scope="module")
async def bench(
    kafka: EmbeddedKafka,
    triton: EmbeddedTriton,
    tiny_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Bench]:
    """Sixty messages judged by a worker under a policy that keeps the texts of most."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "day.toml").write_text(PLAIN)
    (folder / "strict.toml").write_text(STRICT)
    async with open_place(
        folder,
        kafka=kafka.bootstrap_servers,
        triton=triton.grpc_address,
        repository=tiny_repository,
        SLUICE_POLICY__FILE=str(folder / "day.toml"),
    ) as place:
        await place.start_worker(SLUICE_WORKER__BATCH_MESSAGES="3")
        records = [
            place.record(
                TEXTS[number % 4],
                kind=Kind.COMPLETION if number % 10 == 9 else Kind.PROMPT,
                tenant="hush" if number % 6 == 5 else "",
                key=f"k{number}".encode(),
            )
            for number in range(60)
        ]
        await place.settled(await place.publish(records))
        await place.stop()
        yield Bench(place, folder)


def _digest(text: str) -> str:
    return policy_file.parse(text, name="test").ref.digest


async def test_the_recorded_policy_gives_identical_decisions(bench: Bench) -> None:
    """Zero flips, and the canonical bytes of all sixty decisions are the same."""
    done = await bench.replay("--policy", "recorded", "--determinism", "--json")
    assert done.code == 0, done.err
    assert done.json["records"]["compared"] == 60
    assert done.json["flips"]["records"] == 0
    assert (
        done.json["determinism"] | {"checked": 60, "other_decision": 0, "held": True}
        == (done.json["determinism"])
    )
    by_digest = await bench.replay("--policy", _digest(PLAIN), "--json")
    assert by_digest.json["determinism"]["checked"] == 60


async def test_a_rerun_by_the_same_guard_gives_the_same(bench: Bench) -> None:
    """Batches of another size, the same scores; what was not kept is counted, with why."""
    done = await bench.replay(
        "--policy", "recorded", "--scores", "rerun", "--determinism", "--json"
    )
    assert done.code == 0, done.err
    assert done.json["left_out"]["hash-only"]["records"] == 10
    assert (
        done.json["determinism"] | {"checked": 50, "other_decision": 0, "held": True}
        == (done.json["determinism"])
    )
    assert done.json["determinism"]["largest_difference"] <= 1e-4
    assert done.json["rerun"]["score_differences"]["count"] == 50 * 17


async def test_a_stricter_policy_breaches_its_gate(bench: Bench, tmp_path: Path) -> None:
    """Exit 99 names the gate; matrix, flips and report say what would change."""
    out = tmp_path / "out"
    done = await bench.replay(
        "--policy", str(bench.strict), "--max-newly-blocked", "0.2%", "--out", str(out)
    )
    assert done.code == 99, done.err
    assert "gate breached: newly blocked at most 0.2%" in done.err
    found = orjson.loads((out / "summary.json").read_bytes())
    flips = [orjson.loads(line) for line in (out / "flips.jsonl").read_bytes().splitlines()]
    assert len(flips) == found["flips"]["records"] == found["matrix"]["flag"]["block"] > 0
    assert {flip["after"]["because"]["category"] for flip in flips} == {"injection"}
    assert "Gate breached" in (out / "report.html").read_text()
    assert not (out / "checkpoint.json").exists()
    assert done.out


async def test_gates_that_hold_exit_0(bench: Bench) -> None:
    """The same policy releases and blocks nobody anew."""
    done = await bench.replay(
        "--policy", str(bench.day), "--max-newly-blocked", "0", "--max-newly-released", "0"
    )
    assert done.code == 0, done.err


async def test_filters_cut_the_slice(bench: Bench) -> None:
    """By action, tenant, id, offsets; each counts what it leaves out."""
    whole = (await bench.replay("--policy", "recorded", "--json")).json
    hush = (await bench.replay("--policy", "recorded", "--tenant", "hush", "--json")).json
    assert hush["records"]["compared"] == 10
    assert hush["records"]["not_asked_for"] == 50
    verdict = next(v for v in await bench.place.verdicts() if v.action is Action.BLOCK)
    one = (await bench.replay("--policy", "recorded", "--ids", verdict.verdict_id, "--json")).json
    assert one["matrix"]["block"]["block"] == 1 == one["records"]["compared"]
    part = (await bench.replay("--policy", "recorded", "--offsets", "0:0-5", "--json")).json
    assert part["records"]["read"] == 5 < whole["records"]["read"]
    blocked = await bench.replay("--policy", "recorded", "--action", "block", "--json")
    assert blocked.json["records"]["compared"] == whole["matrix"]["block"]["block"]


async def test_nothing_in_bounds_exits_4(bench: Bench) -> None:
    """A gate never passes because nothing was looked at."""
    done = await bench.replay(
        "--policy", "recorded", "--tenant", "nobody", "--max-newly-blocked", "0"
    )
    assert done.code == 4
    assert "nothing was compared" in done.err


@pytest.mark.parametrize("role", ["prompts", "verdicts", "audit", "policies"])
async def test_live_topics_are_never_written_to(bench: Bench, role: str) -> None:
    """Exit 2 names the role of the topic, before anything is read."""
    topic = getattr(bench.place.settings.topics, role)
    done = await bench.replay("--policy", "recorded", "--emit", topic)
    assert done.code == 2
    assert "topic of its own" in done.err


async def test_emitted_events_go_to_their_own_topic_and_nowhere_else(bench: Bench) -> None:
    """Sixty marked audit events under the other policy; the live topics are as they were."""
    own = bench.place.settings
    before = {role: len(await bench.place.read(getattr(own.topics, role))) for role in _ROLES}
    missing = await bench.replay("--policy", str(bench.strict), "--emit", "not-there")
    assert missing.code == 2
    assert "Create it" in missing.err
    topic = f"what-if-{own.topics.audit}"
    extra = TopicSettings(**{**own.topics.model_dump(), "audit": topic})
    await create_topics(own.kafka, extra)
    done = await bench.replay("--policy", str(bench.strict), "--emit", topic)
    assert done.code == 0, done.err
    records = await bench.place.read(topic)
    events = [codec.decode_audit(record.value or b"", SCHEMAS) for record in records]
    assert len(events) == 60
    assert {event.verdict.policy.id for event in events} == {"strict"}
    assert all(headers.first(record.headers, headers.REPLAY_OF) for record in records)
    after = {role: len(await bench.place.read(getattr(own.topics, role))) for role in _ROLES}
    assert after == before


_ROLES = ("prompts", "completions", "verdicts", "audit", "dead_letters")


async def test_mistakes_exit_2_with_a_remedy(bench: Bench, tmp_path: Path) -> None:
    """No traceback, whatever is wrong."""
    unknown = "sha256:" + "0" * 64
    for arguments in (
        ("--policy", str(tmp_path / "none.toml")),
        ("--policy", unknown),
        ("--policy", "recorded", "--resume"),
        ("--policy", "recorded", "--guard", "tiny"),
        ("--policy", "recorded", "--sample", "0"),
        ("--policy", "recorded", "--offsets", "0"),
        ("--policy", "recorded", "--offsets", "9:0-1"),
        ("--policy", "recorded", "--max-newly-blocked", "many"),
        ("--policy", "recorded", "--scores", "rerun", "--guard", "none"),
    ):
        done = await bench.replay(*arguments)
        assert done.code == 2, (arguments, done.err)
        assert done.err.startswith("error: ")
        assert "Traceback" not in done.err


async def test_a_record_whose_policy_is_not_known_is_counted(bench: Bench) -> None:
    """With its digest, so that its file can be looked for."""
    own = bench.place.settings
    empty = f"empty-{own.topics.policies}"
    await create_topics(own.kafka, TopicSettings(**{**own.topics.model_dump(), "policies": empty}))
    done = await bench.replay(
        "--policy", "recorded", "--json",
        SLUICE_POLICY__FILE=str(bench.strict), SLUICE_TOPICS__POLICIES=empty,
    )  # fmt: skip
    assert done.code == 4, done.err
    assert done.json["left_out"]["policy-not-found"]["records"] == 60
    assert done.json["unknown_policies"] == {_digest(PLAIN): 60}


async def test_a_guard_that_is_away_exits_3(bench: Bench) -> None:
    """When no Triton may be started for the call."""
    done = await bench.replay(
        "--policy", "recorded", "--scores", "rerun", "--no-embedded",
        SLUICE_TRITON__URL="127.0.0.1:9",
    )  # fmt: skip
    assert done.code == 3, done.err
