"""What the guard says to texts whose authors knew neither its tables nor its code.

Measuring only: nothing that trains may read `blind/` (`tests/guards/test_blind_sets.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.guards import metrics
from pipeline.guards.calibrate import Array
from pipeline.guards.data import PLACE, Example, example

FOLDER: Final = Path(__file__).with_name("blind")
ATTACKS: Final = ("injection", "jailbreak")
Score = Callable[[Sequence[Example]], Array]
Points = Mapping[str, Mapping[str, float]]


def read(path: Path) -> tuple[list[Example], NDArray[np.bool_], tuple[str, ...]]:
    """A set's texts, which of them are harmful, and the labels that should say so."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    labels = ATTACKS if rows[0]["h"] == "a" else ("unsafe",)
    harmful = np.array([bool(row["y"]) for row in rows])
    return [example(row, {}) for row in rows], harmful, labels


def tables(score: Score, points: Points) -> dict[str, list[dict[str, Any]]]:
    """One row of figures a set; `score` gives calibrated scores [rows, labels]."""
    found = [_figures(path, score, points) for path in sorted(FOLDER.glob("*.jsonl"))]
    return {"Blind sets (English, by authors who saw neither tables nor code)": found}


def _figures(path: Path, score: Score, points: Points) -> dict[str, Any]:
    """AUPRC of the highest of the labels, and what each operating point flags."""
    rows, harmful, labels = read(path)
    values = score(rows)[:, [PLACE[label] for label in labels]]
    highest, truth = values.max(axis=1), harmful.astype(np.float64)
    low, high = metrics.interval(metrics.auprc, highest, truth)
    row: dict[str, Any] = {
        "set": path.stem,
        "n": len(rows),
        "harmful": int(harmful.sum()),
        "AUPRC": metrics.auprc(highest, truth),
        "AUPRC 95%": f"{low:.3f}-{high:.3f}",
    }
    for name, point in points.items():
        flagged = (values >= np.array([point[label] for label in labels])).any(axis=1)
        row[f"{name} recall"] = float(flagged[harmful].mean())
        row[f"{name} FPR"] = float(flagged[~harmful].mean())
    return row
