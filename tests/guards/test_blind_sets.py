"""The blind sets: well-formed, of both classes, and apart from what is trained on."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import pipeline.guards
from pipeline.evaluate import formats
from pipeline.guards import blind_sets
from pipeline.guards.data import LABELS, PLACE, Example
from tests.guards.test_own_words import RUN, runs, texts

SETS = sorted(blind_sets.FOLDER.glob("*.jsonl"))
GUARDS = Path(pipeline.guards.__file__).parent
POINTS = {"balanced": dict.fromkeys(LABELS, 0.5)}


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_set_holds_different_texts_of_both_classes(path: Path) -> None:
    """Each at least a quarter, none twice."""
    rows, harmful, _ = blind_sets.read(path)
    assert len({row.text for row in rows}) == len(rows) >= 300
    assert 0.25 < harmful.mean() < 0.75


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_evaluate_reads_a_set_as_it_lies(path: Path) -> None:
    """Anybody can put another filter beside the guard."""
    loaded = formats.load(f"sluice:{path}", formats.Options(columns={}))
    assert len(loaded.items) == len(path.read_text().splitlines())


def test_no_text_repeats_eight_words_of_the_tables() -> None:
    """What is trained on and what is measured were written apart."""
    tables = (tomllib.loads(path.read_text(encoding="utf-8")) for path in GUARDS.glob("*.toml"))
    trained = {run for table in tables for text in texts(table) for run in runs(text)}
    blind = [row.text for path in SETS for row in blind_sets.read(path)[0]]
    assert RUN == 8
    assert trained
    assert not [text for text in blind if trained & runs(text)]


def test_nothing_that_trains_reads_the_sets() -> None:
    """Only what measures names the folder or its module."""
    readers = {
        path.name
        for path in GUARDS.glob("*.py")
        if "blind" in path.read_text(encoding="utf-8").replace(blind_sets.__name__, "blind")
    }
    assert readers == {"blind_sets.py", "publish.py"}


def test_figures_of_a_guard_that_knows_every_answer() -> None:
    """A perfect score has AUPRC 1, flags all that is harmful and nothing else."""
    known = {
        row["t"]: float(row["y"])
        for path in SETS
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    }

    def score(rows: Sequence[Example]) -> np.ndarray:
        """The label itself."""
        values = np.zeros((len(rows), len(LABELS)))
        for label in ("unsafe", "injection"):
            values[:, PLACE[label]] = [known[row.text] for row in rows]
        return values

    (found,) = blind_sets.tables(score, POINTS).values()
    assert [row["set"] for row in found] == [path.stem for path in SETS]
    for row in found:
        assert (row["AUPRC"], row["balanced recall"], row["balanced FPR"]) == (1.0, 1.0, 0.0)
