"""Tiny checkpoints of every architecture, exported once for the whole run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.guards.recipes import Recipe
from tests.support import checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A checkpoint and the guard's folder made of it."""

    checkpoint: Path
    folder: Path
    recipe: Recipe


def export(checkpoint: Path, name: str, recipe: Recipe, repository: Path, **options: Any) -> Made:
    """Export a checkpoint; the guard lies in `repository / name`."""
    from pipeline.guards import export as exporting

    request = exporting.Request(
        source=str(checkpoint), name=name, recipe=recipe, repository=repository, **options
    )
    return Made(checkpoint=checkpoint, folder=exporting.export(request).folder, recipe=recipe)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository that the exports share."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return tmp_path_factory.mktemp("guards")


@pytest.fixture(scope="session")
def llama_guard_3(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Llama Guard 3's architecture and tokenizer, with windows of 320 tokens."""
    from pipeline.guards import recipes

    checkpoint = checkpoints.llama(tmp_path_factory.mktemp("lg3"))
    return export(checkpoint, "lg3", _short(recipes.named("llama-guard-3-8b")), repository)


@pytest.fixture(scope="session")
def llama_guard_4(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Llama Guard 4's text model, whose rotations and masks differ."""
    from pipeline.guards import recipes

    checkpoint = checkpoints.llama(tmp_path_factory.mktemp("lg4"), generation=4)
    return export(checkpoint, "lg4", _short(recipes.named("llama-guard-4-12b")), repository)


@pytest.fixture(scope="session")
def prompt_guard(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Prompt Guard 2's architecture."""
    from pipeline.guards import recipes

    checkpoint = checkpoints.deberta(tmp_path_factory.mktemp("pg2"))
    recipe = recipes.named("prompt-guard-2").up_to(128)
    return export(checkpoint, "pg2", recipe, repository, version="2")


@pytest.fixture(scope="session")
def own_guard(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A text classifier of one's own, as the README adds it."""
    from pipeline.guards import recipes

    checkpoint = checkpoints.bert(tmp_path_factory.mktemp("own"))
    recipe = recipes.classifier(["-", "S10", "injection"], "softmax", ["prompt", "completion"])
    return export(checkpoint, "own", recipe.up_to(128), repository)


def _short(recipe: Recipe) -> Recipe:
    from dataclasses import replace

    return replace(recipe, buckets=(256, 320), overlap=8, context_length=16)
