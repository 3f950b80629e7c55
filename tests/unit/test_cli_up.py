"""`sluice up` before anything starts: what would ruin a stack that runs is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import settings
from pipeline.cli import up
from pipeline.errors import Misconfigured


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


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says which folder and which variable."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "file"))
    with pytest.raises(Misconfigured, match=r"file cannot be made.*SLUICE_HOME"):
        settings.home()
