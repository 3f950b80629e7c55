"""A policy published to its topic is in force in running workers; garbage there is not."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline import policy_feed, policy_file, policy_history, wiring_policy
from pipeline.adapters.kafka_topics import ROLES
from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.errors import Misconfigured
from pipeline.events import Action, Position, Verdict
from pipeline.policy_history import RecordKind
from pipeline.ports import Outgoing
from pipeline.settings import Settings
from tests.support import places
from tests.support.cli import Sluice
from tests.support.places import Place

STRICT = 'id = "strict"\nversion = "1"\n[default.prompt]\nunsafe = { block = 0.0 }\n'
MILD = 'id = "mild"\nversion = "1"\n[default.prompt]\nunsafe = { flag = 1.0 }\n'


@pytest.fixture
async def place(
    kafka: EmbeddedKafka, triton: EmbeddedTriton, tiny_repository: Path, tmp_path: Path
) -> AsyncIterator[Place]:
    """Topics of the test's own."""
    async with places.open_place(
        tmp_path, kafka=kafka.bootstrap_servers, triton=triton.grpc_address,
        repository=tiny_repository,
    ) as opened:  # fmt: skip
        yield opened


def with_file(place: Place, folder: Path, text: str) -> Settings:
    """The place's settings with another policy file."""
    path = folder / "policy.toml"
    path.write_text(text)
    return place.settings.model_copy(
        update={"policy": place.settings.policy.model_copy(update={"file": path})}
    )


async def verdict(place: Place, text: str = "hello") -> Verdict:
    """The verdict on one prompt."""
    (at,) = await place.texts(text)
    found = (await place.settled([at]))[at][0]
    assert isinstance(found, Verdict)
    return found


def logged(worker: EmbeddedWorker, event: str) -> list[dict[str, Any]]:
    """A worker's log lines of one event."""
    lines = (orjson.loads(line) for line in worker.log.read_text().splitlines() if line[:1] == "{")
    return [line for line in lines if line.get("event") == event]


async def says(worker: EmbeddedWorker, word: str) -> None:
    """Wait until the worker's readiness names a policy."""

    async def named() -> bool:
        checks = (await places.get(worker, "/readyz")).checks
        return word in checks["policy"]["detail"]

    await places.until(named, f"policy {word} in force")


async def test_a_worker_publishes_what_it_judges_with(place: Place) -> None:
    """The policy and the card that a verdict names are in the topic before the first verdict."""
    await place.start_worker()
    first = await verdict(place)
    history, refused = await wiring_policy.history(place.settings)
    found = history.policy(first.policy.digest)
    assert found is not None
    assert found.ref == first.policy
    assert history.card(first.guards[0].digest) is not None
    assert (history.active, refused) == (None, [])
    await place.start_worker()
    assert len((await wiring_policy.history(place.settings))[0].placed) == len(history.placed)


async def test_a_running_worker_switches_and_every_verdict_says_which(
    place: Place, tmp_path: Path
) -> None:
    """Published, activated and activated back, without a restart; the offset is logged."""
    worker = await place.start_worker()
    before = await verdict(place)
    strict = with_file(place, tmp_path, STRICT)
    record = await wiring_policy.publish(strict, note="a drill", activate=True)
    await says(worker, "strict 1")
    during = await verdict(place)
    assert (during.policy.digest, during.action) == (record.digest, Action.BLOCK)
    active = (await wiring_policy.history(place.settings))[0].active
    assert active is not None
    (switch,) = logged(worker, "policy-in-force")
    assert (switch["digest"], switch["offset"]) == (record.digest, active.offset)
    await wiring_policy.activate(place.settings, before.policy.digest[7:19], note=None)
    await says(worker, before.policy.id)
    assert (await verdict(place)).policy == before.policy
    assert await places.metric(worker, "sluice_policy_switches_total") == {(): 2.0}


async def test_a_new_worker_follows_the_topic_unless_told_not_to(
    place: Place, tmp_path: Path
) -> None:
    """What was activated before it started is in force, whatever its file says."""
    await wiring_policy.publish(with_file(place, tmp_path, STRICT), note=None, activate=True)
    worker = await place.start_worker()
    await says(worker, "strict 1")
    assert (await verdict(place)).policy.id == "strict"
    await worker.stop()
    await place.start_worker(SLUICE_POLICY__FOLLOW="false")
    assert (await verdict(place)).policy.id != "strict"


async def test_garbage_in_the_topic_changes_nothing_and_is_told(
    place: Place, tmp_path: Path
) -> None:
    """Junk and an activation of nothing are refused; a good policy is taken after them."""
    worker = await place.start_worker()
    before = await verdict(place)
    topic = place.settings.topics.policies
    now = datetime.now(UTC)
    never = policy_history.of_policy(STRICT, name="", at=now, by="t", note=None)
    unknown = policy_history.activation(never, at=now, by="t", note=None)
    await place.publish(
        [
            *(
                Outgoing(topic=topic, key=b"junk", value=value, headers=())
                for value in (b"garbage", b"", None, b"\0\0\0\0\5\xff\xff")
            ),
            policy_feed.outgoing(topic, unknown, places.SCHEMAS),
        ]
    )
    known = (await wiring_policy.history(place.settings))[0]
    with pytest.raises(Misconfigured, match="was ever"):
        known.find(never.digest)

    async def counted() -> bool:
        refused = await places.metric(worker, "sluice_policy_refused_total")
        return sum(refused.values()) == 5

    await places.until(counted, "five refusals")
    assert (await verdict(place)).policy == before.policy
    await wiring_policy.publish(with_file(place, tmp_path, MILD), note=None, activate=True)
    await says(worker, "mild 1")
    assert (await verdict(place)).policy.id == "mild"
    restarted = await place.start_worker()
    await says(restarted, "mild 1")


async def test_a_switch_under_load_leaves_each_message_with_one_policy(
    place: Place, tmp_path: Path
) -> None:
    """Every input has one verdict, under the old policy or the new, and nothing is lost."""
    await place.start_worker()
    positions: list[Position] = []
    for index in range(6):
        positions += await place.texts(*(f"text {index} {n}" for n in range(25)))
        text = STRICT if index % 2 else MILD
        await wiring_policy.publish(with_file(place, tmp_path, text), note=None, activate=True)
    found = await place.settled(positions)
    assert (await place.reconciled()).balanced
    history, _ = await wiring_policy.history(place.settings)
    for (outcome,) in found.values():
        assert isinstance(outcome, Verdict)
        used = history.policy(outcome.policy.digest)
        assert used is not None
        wanted = {"strict": Action.BLOCK, "mild": Action.ALLOW}.get(used.ref.id)
        assert wanted is None or outcome.action is wanted


def test_the_commands_publish_list_and_give_back(
    kafka: EmbeddedKafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """`publish`, `history`, `get` and `activate` as a person uses them."""
    own = secrets.token_hex(4)
    given = {
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "topics": {role: f"{role}-{own}" for role in ROLES},
    }
    for name, value in places.as_variables(given).items():
        monkeypatch.setenv(name, value)
    path, sluice = tmp_path / "strict.toml", Sluice(capfdbinary)
    path.write_text(STRICT)
    assert sluice("topics", "create").code == 0
    assert sluice("policy", "history").code == 4
    done = sluice("policy", "publish", str(path), "--note", "a drill")
    assert "in force  strict version 1 sha256:" in done.out
    digest = policy_file.parse(STRICT, name="").ref.digest
    assert sluice("policy", "get", digest[7:17]).out == STRICT
    listed = sluice("policy", "history", "--json").out.splitlines()
    kinds = [(each["record"], each["in_force"]) for each in map(orjson.loads, listed)]
    assert kinds == [(RecordKind.POLICY, False), (RecordKind.ACTIVATION, True)]
    assert sluice("policy", "activate", digest[7:17]).code == 0
    assert sluice("policy", "activate", "123456").code == 2


async def test_a_policy_that_wants_keys_is_not_put_in_force_without_a_folder(
    place: Place, tmp_path: Path
) -> None:
    """Activating it is refused where no folder is set; a worker without one refuses it, too."""
    sealed = STRICT.replace(
        "[default.prompt]", '[default]\nretention = "encrypted"\n[default.prompt]'
    )
    wants = with_file(place, tmp_path, sealed)
    record = await wiring_policy.publish(wants, note=None, activate=False)
    with pytest.raises(Misconfigured, match="no key folder"):
        await wiring_policy.activate(place.settings, record.digest, note=None)
    worker = await place.start_worker()
    before = await verdict(place)
    await wiring_policy.publish(wants, note=None, activate=True)

    async def refused() -> bool:
        return bool(logged(worker, "policy-refused"))

    await places.until(refused, "a refusal")
    assert (await verdict(place)).policy == before.policy
