"""The folder of one run: gone afterwards, kept with its logs when the run failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pipeline.embedded.stack
from loadtest import workload
from loadtest.bench import ceiling
from pipeline.cli import demo, loadtest_target
from pipeline.embedded.process import EmbeddedFailed
from pipeline.embedded.scratch import scratch
from pipeline.errors import Misconfigured

from .stacks import BrokenStack


def _ended(parent: Path, error: BaseException | None, *, log: bool = True) -> tuple[Path, str]:
    """A run that ends so, with or without a log; its folder and what was said."""
    said: list[str] = []
    try:
        with scratch(parent, prefix="run-", say=said.append) as data:
            if log:
                (data / "log").touch()
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error  # noqa: PT017 - whichever it is
    return data, "\n".join(said)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_nothing_stays_of_a_run_that_went_well_or_was_interrupted(
    tmp_path: Path, error: BaseException | None
) -> None:
    """There is nothing to look into."""
    data, said = _ended(tmp_path / "demo", error)
    assert not data.exists()
    assert said == ""


def test_logs_stay_when_the_run_failed(tmp_path: Path) -> None:
    """And it says where."""
    data, said = _ended(tmp_path, RuntimeError())
    assert (data / "log").exists()
    assert said == f"logs are kept in {data}"


def test_without_logs_nothing_is_promised(tmp_path: Path) -> None:
    """A run that failed before anything started leaves no folder."""
    data, said = _ended(tmp_path, RuntimeError(), log=False)
    assert not data.exists()
    assert said == ""


def test_no_two_runs_share_a_folder(tmp_path: Path) -> None:
    """Even of one process: what a killed run left is never counted again."""
    first, _ = _ended(tmp_path, RuntimeError())
    with scratch(tmp_path, prefix="run-", say=print) as second:
        assert second != first
        assert not any(second.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """In one line, with the variable that helps."""
    (tmp_path / "demo").touch()
    with (
        pytest.raises(Misconfigured, match=r"demo cannot be written.*SLUICE_HOME"),
        scratch(tmp_path / "demo", prefix="run-", say=print),
    ):
        pass


async def test_a_demo_whose_stack_fails_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names a log: it has to be there."""
    stack = BrokenStack("start")
    monkeypatch.setattr(demo, "EmbeddedStack", stack)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    with pytest.raises(EmbeddedFailed):
        await demo._demo(keep=False)
    assert stack.log.exists()


async def test_a_load_test_whose_stack_fails_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever part of the stack it was."""
    stack = BrokenStack("worker")
    monkeypatch.setattr(pipeline.embedded.stack, "EmbeddedStack", stack)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    load = workload.read(workload.find("osprey-gate-10k-at-1000-per-s"))
    with pytest.raises(EmbeddedFailed):
        async with loadtest_target._embedded(load, {"topics": dict(load.topics)}):
            pass
    assert stack.log.exists()


async def test_a_benchmark_whose_stack_fails_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a load test does."""

    def nothing(*_: Any) -> dict[str, Any]:
        return {}

    stack = BrokenStack("start")
    monkeypatch.setattr(ceiling, "EmbeddedStack", stack)
    monkeypatch.setattr(ceiling, "only_guard", nothing)
    monkeypatch.setattr(ceiling.environment, "describe", nothing)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    with pytest.raises(EmbeddedFailed):
        await ceiling.measure("osprey-gate-10k-at-1000-per-s", 1, 1)
    assert stack.log.exists()
