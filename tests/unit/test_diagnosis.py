"""The checks behind `sluice doctor`, and how they end."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from pipeline import diagnosis, findings, settings
from pipeline.adapters import kafka_admin
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.findings import Finding, State
from pipeline.health import Health, HealthServer
from pipeline.topic_check import TopicShape


async def _well() -> str:
    return "fine"


async def _never() -> str:
    await asyncio.Event().wait()
    return ""


async def _raises(error: Exception) -> str:
    raise error


def of(*states: State) -> list[Finding]:
    """Findings that ended so."""
    return [Finding(name="n", state=state, detail="") for state in states]


async def test_a_check_that_returns_is_ok() -> None:
    """What it returns is the detail."""
    found = await findings.finding("n", _well())
    assert (found.state, found.detail, found.remedy) == (State.OK, "fine", "")


async def test_a_check_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What never answers is down, and the next check gets its turn."""
    monkeypatch.setattr(findings, "LIMIT_S", 0.01)
    found = await findings.finding("n", _never(), asked="host:1")
    assert (found.state, found.detail) == (State.DOWN, "host:1 gives no answer in 0.01 s")
    assert found.remedy


async def test_an_error_is_told_with_its_remedy() -> None:
    """Away is down, misconfigured is wrong; no remedy sends people back here."""
    away = DependencyUnavailable("away", remedy="Start it; `sluice doctor` tells what is up")
    found = await findings.finding("n", _raises(away))
    assert (found.state, found.remedy) == (State.DOWN, "Start it")
    wrong = await findings.finding("n", _raises(Misconfigured("bad", remedy="Mend it")))
    assert (wrong.state, wrong.detail) == (State.WRONG, "bad")


async def test_an_unexpected_error_stops_no_other_check() -> None:
    """Its kind and place are told, not its words: they may quote a setting."""
    found = await findings.finding("n", _raises(OverflowError("s3cret")))
    assert (found.state, found.remedy != "") == (State.WRONG, True)
    assert "unexpected OverflowError (test_diagnosis.py, line " in found.detail
    assert "s3cret" not in found.detail


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ((), State.OK),
        ((State.OK, State.INFO, State.SKIPPED), State.OK),
        ((State.OK, State.DOWN), State.DOWN),
        ((State.DOWN, State.WRONG), State.WRONG),
    ],
)
def test_what_a_person_must_change_comes_first(states: tuple[State, ...], worst: State) -> None:
    """Wrong before down; information decides nothing."""
    assert findings.worst(of(*states)) is worst


async def test_a_worker_that_is_not_ready_says_what_it_lacks() -> None:
    """The names and details of the checks that fail are passed on."""
    health = Health(["guard", "partitions"])
    health.set("guard", ok=True, detail="answers")
    with HealthServer(health, host="127.0.0.1", port=0) as server:
        loaded = settings.load({"worker": {"http_port": server.port}})
        with pytest.raises(DependencyUnavailable, match="partitions: not yet checked"):
            await diagnosis._worker(loaded)
        health.set("partitions", ok=True, detail="4")
        assert (await diagnosis._worker(loaded)).startswith("ready at")


async def test_what_is_no_worker_is_no_worker(talker: int) -> None:
    """A port that speaks another protocol ends the check, not the command."""
    loaded = settings.load({"worker": {"http_port": talker}})
    with pytest.raises(DependencyUnavailable, match="no worker answers"):
        await diagnosis._worker(loaded)


async def test_certificates_that_are_not_there_are_findings(tmp_path: Path) -> None:
    """Of Kafka and of Triton; every other check is made."""
    kafka = {"security_protocol": "SSL", "ca_file": tmp_path / "kafka.pem"}
    triton = {"tls": True, "ca_file": tmp_path / "triton.pem", "url": "127.0.0.1:1"}
    loaded = settings.load({"kafka": kafka, "triton": triton, "worker": {"http_port": 0}})
    found = {each.name: each async for each in diagnosis.examine(loaded)}
    for name, key in (("kafka", "kafka.ca_file"), ("guard default in Triton", "triton.ca_file")):
        assert found[name].state is State.WRONG
        assert f"{key.partition('.')[0]}.pem cannot be read" in found[name].detail
        assert key in found[name].remedy
    assert found["golden texts"].state is State.SKIPPED


async def test_weights_that_are_not_the_card_s_are_wrong(
    tiny_repository: Path, tmp_path: Path
) -> None:
    """Changed or missing weights are found without a server."""
    copy = Path(shutil.copytree(tiny_repository, tmp_path / "models"))
    loaded = settings.load({"guards": {"repository": copy, "names": ("tiny",)}})
    assert "digests match" in await diagnosis._card(loaded, "tiny")
    (copy / "tiny" / "1" / "model.py").write_text("changed")
    with pytest.raises(Misconfigured, match="not those of its card"):
        await diagnosis._card(loaded, "tiny")


async def test_topics_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, however many settings of it are compared."""
    loaded = settings.load()
    wanted = kafka_admin.wanted_shapes(loaded.topics)

    async def found(*_: object) -> dict[str, TopicShape]:
        return wanted

    monkeypatch.setattr(kafka_admin, "found_shapes", found)
    assert await diagnosis._topics(loaded) == f"all {len(wanted)} are as the settings say"


async def test_the_embedded_stack_s_needs_decide_nothing() -> None:
    """They are information, whether met or not."""
    assert {found.state async for found in diagnosis.embedded()} == {State.INFO}
