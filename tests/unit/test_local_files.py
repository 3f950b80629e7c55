"""A developer's own settings files stay out of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import settings
from tests.support import local_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with both files."""
    monkeypatch.chdir(tmp_path)
    Path("sluice.toml").write_text('[kafka]\ngroup = "file"\n')
    Path(".env").write_text("SLUICE_TRITON__URL=dotenv:1\n")
    return tmp_path


def _seen() -> tuple[str, str]:
    loaded = settings.load()
    return loaded.kafka.group, loaded.triton.url


def test_files_in_the_folder_are_not_read(folder: Path) -> None:
    """Neither of them, whichever way settings are made; afterwards they are again."""
    with local_files.ignored_in(folder):
        assert _seen() == ("sluice-worker", "127.0.0.1:8001")
        assert settings.Settings().triton.url == "127.0.0.1:8001"
    assert _seen() == ("file", "dotenv:1")


def test_files_elsewhere_are_read(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A test writes its own in a folder of its own."""
    with local_files.ignored_in(tmp_path_factory.mktemp("start")):
        assert _seen() == ("file", "dotenv:1")


def test_a_file_that_is_named_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the folder."""
    Path("mine.toml").write_text('[kafka]\ngroup = "mine"\n')
    monkeypatch.setenv("SLUICE_CONFIG", "mine.toml")
    with local_files.ignored_in(folder):
        assert _seen() == ("mine", "127.0.0.1:8001")


def test_the_whole_run_is_covered(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read where pytest was started, which is where a developer's files lie."""
    monkeypatch.chdir(pytestconfig.invocation_params.dir)
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    assert settings.config_file({}) is None
    assert settings.Settings.model_config["env_file"] is None
