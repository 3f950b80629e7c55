"""The checks behind `sluice doctor`, and how they end."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from pipeline import diagnosis, findings, settings
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.findings import Finding, State
from pipeline.health import Health, HealthServer


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


async def test_the_embedded_stack_s_needs_decide_nothing() -> None:
    """They are information, whether met or not."""
    assert {found.state async for found in diagnosis.embedded()} == {State.INFO}
