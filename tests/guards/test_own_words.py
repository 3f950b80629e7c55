"""The phrases of our own were not taken from what the guard is measured on."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline.guards

pytestmark = pytest.mark.guards

RUN = 8
# The one jailbreak that everybody quotes; its name explains itself in the same words everywhere.
COMMON = " do anything now "
GUARDS = Path(pipeline.guards.__file__).parent
DATA = Path(os.environ.get("SLUICE_TRAINING_DATA", GUARDS.parents[2] / "shared" / "data"))
TABLES = sorted(GUARDS.glob("*.toml"))


def texts(value: Any) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def runs(text: str) -> set[tuple[str, ...]]:
    """Every `RUN` words in a row, without case and punctuation at their ends."""
    words = [stripped for word in text.lower().split() if (stripped := word.strip(".,;:!?'\"()*"))]
    return {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


@pytest.fixture(scope="module")
def measured() -> set[tuple[str, ...]]:
    """The runs of CyberSecEval, which is never trained on."""
    folder = DATA / "cyberseceval"
    if not folder.is_dir():
        pytest.skip(f"the public data is not at {DATA.name}: set SLUICE_TRAINING_DATA")
    documents = (json.loads(path.read_bytes()) for path in sorted(folder.rglob("*.json")))
    found = {run for document in documents for text in texts(document) for run in runs(text)}
    return {run for run in found if COMMON not in f" {' '.join(run)} "}


def test_words_in_a_row_are_found(measured: set[tuple[str, ...]]) -> None:
    """The check can fail: words of the set are found in a longer text."""
    first = next(iter(sorted(measured)))
    assert measured & runs(f"Well, {' '.join(first).upper()}! Indeed.")
    assert not measured & runs("Nobody has ever written this sentence about seven lamps before.")


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_no_phrase_repeats_eight_words_of_cyberseceval(
    table: Path, measured: set[tuple[str, ...]]
) -> None:
    """Neither copied nor lightly changed."""
    taken = {
        text[:100]
        for text in texts(tomllib.loads(table.read_text(encoding="utf-8")))
        if measured & runs(text)
    }
    assert not taken
