"""The real broker and the real server, one of each for the whole run."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.settings import home
from tests.support import local_files, tiny_guard

_SHOWN = ("faust-streaming", "aiokafka", "tritonclient", "fastavro", "nvidia-pytriton", "numpy")


def pytest_report_header() -> str:
    """Name the versions that decide what is tested."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _SHOWN)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No SLUICE_* variable and no settings file of the developer's reaches a test, home apart."""
    removed = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith("SLUICE_") and name != "SLUICE_HOME"
    }
    with local_files.ignored_in(Path.cwd()):
        yield
    os.environ.update(removed)


@pytest.fixture(scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedKafka]:
    """A real broker, shared: tests take topics and groups of their own."""
    async with EmbeddedKafka(home(), tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the toy guard `tiny`."""
    return tiny_guard.make(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
async def triton(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedTriton]:
    """A real Triton that serves the toy guard, shared."""
    async with EmbeddedTriton(
        tiny_repository, ["tiny"], tmp_path_factory.mktemp("triton")
    ) as server:
        yield server
