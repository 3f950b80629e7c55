"""The Makefile where the surroundings are not what it expects."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_OWN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
"""Variables by which a make that runs these tests would reach the one under test."""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def _make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in _OWN}
    return subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), *arguments],
        env={**own, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment that is there, and whose Python does nothing."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    (tmp_path / "venv" / ".dev").touch()
    return tmp_path / "venv"


def test_chaos_removes_its_own_results_and_nothing_else(tmp_path: Path, venv: Path) -> None:
    """Also where SLUICE_HOME holds a space: `my data` is not `my` and `data`."""
    bystander, home = tmp_path / "my", tmp_path / "my data"
    for folder in (bystander, home / "chaos", home / "up"):
        folder.mkdir(parents=True)
    done = _make("-o", f"{venv}/.dev", f"VENV={venv}", "chaos", SLUICE_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert bystander.exists()
    assert [each.name for each in home.iterdir()] == ["up"]


def test_without_a_python_it_says_which_to_install_and_stops(tmp_path: Path) -> None:
    """One line of its own, none of the shell's."""
    done = _make("PYTHON=", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/.base")
    assert done.returncode == 2
    first, *_ = done.stderr.splitlines()
    assert first.startswith("error: Sluice needs Python 3.11 or 3.12")
    assert not (tmp_path / "venv").exists()
