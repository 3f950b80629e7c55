"""Kept content on the real broker and guard: sealed, shown, exported, erased; found by id."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow.parquet
import pytest

from pipeline.adapters import key_admin
from pipeline.adapters.keys import RELIST_S, KeyFolder
from pipeline.cli.exits import Exit
from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.errors import KeyUnavailable
from pipeline.events import AuditEvent, Kind, Position, Retention
from pipeline.sealing import opened
from tests.support import places
from tests.support.cli import Sluice
from tests.support.places import MARKER, Place

POLICY = """
id = "kept"
version = "1"
[default]
retention = "hash"
[default.prompt]
unsafe = { flag = 0.3, review = 0.6, block = 0.95 }
[default.completion]
unsafe = { flag = 0.3, review = 0.6, block = 0.95 }
[tenants.acme]
retention = "encrypted"
[tenants.globex]
retention = "encrypted"
[tenants.plain]
retention = "plain"
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key folder in which acme has a key and globex has none."""
    folder = tmp_path_factory.mktemp("content") / "keys"
    key_admin.create(folder, "acme", now=datetime.now(UTC))
    return folder


@pytest.fixture(scope="module")
async def place(
    kafka: EmbeddedKafka, triton: EmbeddedTriton, tiny_repository: Path, keys: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Place]:  # fmt: skip
    """Topics of this module's own, and a policy with every retention."""
    folder = tmp_path_factory.mktemp("content-place")
    (folder / "policy.toml").write_text(POLICY)
    async with places.open_place(
        folder, kafka=kafka.bootstrap_servers, triton=triton.grpc_address,
        repository=tiny_repository, SLUICE_POLICY__FILE=str(folder / "policy.toml"),
        SLUICE_AUDIT__KEYS_FOLDER=str(keys),
    ) as opened_place:  # fmt: skip
        yield opened_place


@pytest.fixture(scope="module")
async def worker(place: Place) -> EmbeddedWorker:
    """The one worker of this module."""
    return await place.start_worker()


@pytest.fixture
def sluice(
    place: Place, keys: Path, capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Sluice:  # fmt: skip
    """The command, led to this module's topics, policy and keys."""
    for name, value in place._environ.items():
        if name.startswith("SLUICE_"):
            monkeypatch.setenv(name, value)
    return Sluice(capfdbinary)


async def event_of(place: Place, position: Position) -> AuditEvent:
    """The audit event of an input, once it is judged."""
    await place.settled([position])
    (found,) = [each for each in await place.audits() if each.verdict.source == position]
    return found


async def published(place: Place, text: str, **fields: object) -> Position:
    """One message, published."""
    (position,) = await place.publish([place.record(text, **fields)])
    return position


async def test_encrypted_content_is_sealed_on_its_way_and_opens_with_the_key(
    place: Place, worker: EmbeddedWorker, keys: Path
) -> None:
    """Content and context; no byte of them lies in the audit topic."""
    at = await published(
        place, "an answer", tenant="acme", kind=Kind.COMPLETION, prompt="a question quokkaberry"
    )
    event = await event_of(place, at)
    assert event.retention is Retention.ENCRYPTED
    found = opened(event, KeyFolder(keys))
    assert found.content == f"an answer {MARKER}".encode()
    assert found.context == b"a question quokkaberry"
    for record in await place.read(place.settings.topics.audit):
        assert MARKER.encode() not in (record.value or b"")


async def test_keys_are_created_and_erased_under_a_running_worker(
    place: Place, worker: EmbeddedWorker, keys: Path
) -> None:
    """Without a key the verdict comes all the same, with the hash; with one, texts are sealed;
    erased, they are unreadable, and the worker goes on.
    """
    events = []
    for step in ("none", "created", "erased"):
        if step == "created":
            key_admin.create(keys, "globex", now=datetime.now(UTC))
        if step == "erased":
            key_admin.erase(keys, "globex", now=datetime.now(UTC))
        await places.asyncio.sleep(RELIST_S + 0.2)
        events.append(await event_of(place, await published(place, step, tenant="globex")))
    assert [event.retention.value for event in events] == ["hash", "encrypted", "hash"]
    assert all(event.content_hash for event in events)
    with pytest.raises(KeyUnavailable) as caught:
        opened(events[1], KeyFolder(keys))
    assert caught.value.erased
    page = await places.get(worker, "/readyz")
    assert (page.status, page.checks["keys"]["ok"]) == (200, True)
    assert "'globex'" in page.checks["keys"]["detail"]
    assert "sluice audit keys create" in page.checks["keys"]["detail"]
    assert sum((await places.metric(worker, "sluice_content_not_sealed_total")).values()) == 2


async def test_show_tells_a_message_by_either_id(
    place: Place, worker: EmbeddedWorker, sluice: Sluice
) -> None:
    """Its thresholds, its prompt, its text only when asked; repeats and other inputs counted."""
    ask = place.record("unsafe question", message_id="ask-1", conversation_id="c-7", tenant="acme")
    tell = place.record(
        "an answer", kind=Kind.COMPLETION, message_id="tell-1", conversation_id="c-7",
        prompt_id="ask-1", tenant="acme",
    )  # fmt: skip
    first, answer = await place.publish([ask, tell])
    (again,) = await place.publish([ask])
    await place.settled([first, answer, again])

    async def show(*arguments: str) -> object:
        return await places.asyncio.to_thread(sluice, "audit", "show", *arguments)

    told = (await show("tell-1", "--json")).json  # type: ignore[attr-defined]
    assert told["verdict"]["verdict_id"] == str(answer)
    assert told["policy_at_hand"]
    assert {"ask-1"} == {each["message_id"] for each in told["related"]}
    assert "content" not in told
    asked = (await show(str(first), "--json", "--show-text")).json  # type: ignore[attr-defined]
    assert asked["verdict"]["verdict_id"] == str(first)
    assert asked["content"] == f"unsafe question {MARKER}"
    assert {each["message_id"] for each in asked["related"]} >= {"tell-1"}
    limits = {each["category"]: each["limits"] for each in asked["scores"]}
    assert [each["at"] for each in limits["unsafe"]] == [0.3, 0.6, 0.95]
    latest = (await show("ask-1", "--json", "--no-related")).json  # type: ignore[attr-defined]
    assert (latest["verdict"]["verdict_id"], latest["other_verdicts"]) == (str(again), [str(first)])
    people = await show("ask-1")
    assert MARKER not in people.out  # type: ignore[attr-defined]
    assert "tell-1" in people.out  # type: ignore[attr-defined]


@pytest.mark.parametrize("wanted", ["no-such-message", "prompts:0:999999"])
async def test_show_of_what_is_not_there_says_what_to_try(
    place: Place, worker: EmbeddedWorker, sluice: Sluice, wanted: str
) -> None:
    """Exit 4."""
    done = await places.asyncio.to_thread(sluice, "audit", "show", wanted)
    assert done.code == Exit.EMPTY
    assert "sluice" in done.err.partition(".")[2]


async def test_export_counts_opens_and_explains(
    place: Place, worker: EmbeddedWorker, sluice: Sluice, keys: Path, tmp_path: Path
) -> None:
    """Rows by filter, texts opened or why not; the same in both formats; private with texts."""
    texts = [
        await published(place, "sealed", tenant="acme", message_id="x-1"),
        await published(place, "public", tenant="plain", message_id="x-2"),
        await published(place, "hashed", tenant="other", message_id="x-3"),
    ]
    await place.settled(texts)
    chosen = [part for n in (1, 2, 3) for part in ("--id", f"x-{n}")]
    out = tmp_path / "out.parquet"

    async def export(*arguments: str) -> object:
        return await places.asyncio.to_thread(sluice, "audit", "export", *arguments, "--json")

    done = await export("--out", str(out), *chosen, "--show-text")
    counts = done.json  # type: ignore[attr-defined]
    assert (counts["rows"], counts["texts"]) == (3, {"opened": 2, "not kept": 1})
    rows = {row["message_id"]: row for row in pyarrow.parquet.read_table(out).to_pylist()}
    assert rows["x-1"]["content"] == f"sealed {MARKER}"
    assert rows["x-2"]["content"] == f"public {MARKER}"
    assert rows["x-3"]["content"] is None
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    lines = tmp_path / "out.jsonl"
    await export("--out", str(lines), "--tenant", "acme", "--tenant", "plain")
    found = [orjson.loads(line) for line in lines.read_bytes().splitlines()]
    assert {row["tenant"] for row in found} == {"acme", "plain"}
    assert MARKER.encode() not in lines.read_bytes()
    key_admin.erase(keys, "acme", now=datetime.now(UTC))
    done = await export("--out", str(out), "--id", "x-1", "--show-text", "--force")
    assert done.json["texts"] == {"key erased": 1}  # type: ignore[attr-defined]
    (row,) = pyarrow.parquet.read_table(out).to_pylist()
    assert (row["content"], row["content_problem"]) == (None, "key erased")
    none = tmp_path / "none.jsonl"
    done = await export("--out", str(none), "--id", "nobody")
    assert (done.code, none.exists()) == (Exit.EMPTY, False)  # type: ignore[attr-defined]
