"""`sluice up` without a stack: what would ruin one that runs is refused, what ends is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.cli import up
from pipeline.embedded.process import EmbeddedFailed
from pipeline.errors import Misconfigured

from .stacks import BrokenStack


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_second_stack_in_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fresh: bool
) -> None:
    """Also with --fresh, which would delete the data of the one that runs."""
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    kept = tmp_path / "up" / "kept"
    kept.mkdir(parents=True)
    with up._alone(tmp_path / "up.lock"), pytest.raises(Misconfigured, match="runs already"):
        await up._up(1, fresh=fresh)
    assert kept.exists()


def test_a_part_that_outlives_a_killed_owner_holds_the_folder(tmp_path: Path) -> None:
    """Until it has ended: --fresh would delete the data of a broker that still stops."""
    path = tmp_path / "up.lock"
    wait_for_input = [sys.executable, "-c", "input()"]
    with up._alone(path) as lock:
        part = subprocess.Popen(wait_for_input, stdin=subprocess.PIPE, pass_fds=(lock,))
    with part:
        with pytest.raises(Misconfigured, match="still stops there"), up._alone(path):
            pass
        part.communicate(b"\n")
    with up._alone(path):
        pass


async def test_every_part_is_given_the_lock_and_one_that_ends_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the part; the data and the log stay."""
    stack = BrokenStack("ended")
    monkeypatch.setattr(up, "EmbeddedStack", stack)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    with pytest.raises(EmbeddedFailed, match="Apache Kafka ended with status 1"):
        await up._up(1, fresh=False)
    assert stack.log.exists()
    assert stack.held == [(tmp_path / "up.lock").stat().st_ino]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A full disk or a folder of another user: one line, with the variable that helps."""
    path = tmp_path / "up.lock"
    path.mkdir()
    with (
        pytest.raises(Misconfigured, match=r"up\.lock cannot be written.*SLUICE_HOME"),
        up._alone(path),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which folder and which variable."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "file"))
    with pytest.raises(Misconfigured, match=r"file cannot be made.*SLUICE_HOME"):
        settings.home()
