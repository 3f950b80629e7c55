"""The settings files of a developer, out of the tests' sight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from pipeline import settings
from pipeline.settings import Settings


@contextmanager
def ignored_in(folder: Path) -> Iterator[None]:
    """Neither `sluice.toml` nor `.env` is read where `folder` is the current one.

    Elsewhere they are: a test goes to a folder of its own and writes them there.
    """
    named, with_file = settings.config_file, settings._with_file

    def config_file(environ: Mapping[str, str]) -> Path | None:
        """Only a file that SLUICE_CONFIG names, in `folder`."""
        away = Path.cwd() != folder or environ.get("SLUICE_CONFIG")
        return named(environ) if away else None

    def source(path: Path | None) -> type[Settings]:
        """With `.env` again, away from `folder`."""
        made = with_file(path)
        made.model_config["env_file"] = None if Path.cwd() == folder else ".env"
        return made

    with (
        patch.object(settings, "config_file", config_file),
        patch.object(settings, "_with_file", source),
        patch.dict(Settings.model_config, env_file=None),
    ):
        yield
