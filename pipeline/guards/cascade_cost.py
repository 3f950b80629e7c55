"""What a first stage settles before a full guard, and what that costs. Pure but for the graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.guards.batches import Windower, batches
from pipeline.guards.data import LABELS, Example

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Every window of some texts: whose it is, and both guards' calibrated scores."""

    owner: NDArray[np.int64]
    first: Floats
    full: Floats
    texts: int

    def settled(self, below: float) -> Flags:
        """Which windows the first stage settles."""
        return np.asarray(self.first.max(axis=1) < below)

    def flagged(self, cuts: Floats, below: float = 0.0) -> Flags:
        """Which texts cross a threshold; windows settled `below` a score do not count."""
        crossing = (self.full >= cuts).any(axis=1) & ~self.settled(below)
        found = np.zeros(self.texts, bool)
        found[self.owner[crossing]] = True
        return found

    def of(self, texts: Flags) -> Windows:
        """The windows of some of the texts; the others remain as texts without windows."""
        keep = texts[self.owner]
        return Windows(
            owner=self.owner[keep], first=self.first[keep], full=self.full[keep], texts=self.texts
        )


def by_window(
    path: Path, rows: Sequence[Example], windower: Windower
) -> tuple[NDArray[np.int64], Floats]:
    """The text of each window and a graph's logits for it, in an order fixed by the rows."""
    from pipeline.guards import quantise

    session = quantise.session(path, 1)
    owners, logits = [], []
    for indexes, batch in batches(rows, windower, tokens=1024, documents=8):
        feed = {"input_ids": batch.ids, "attention_mask": batch.mask}
        owners.append(np.asarray(indexes)[batch.owner])
        logits.append(session.run(None, feed)[0])
    return np.concatenate(owners), np.concatenate(logits).astype(np.float64)


def threshold(windows: Windows, positive: Flags, cuts: Floats, lost: float) -> float:
    """The score below which windows may be settled so that a share `lost` of what is caught is.

    Caught: a positive text of which the full guard flags a window. It is lost
    when all those windows are settled, so its highest first score among them decides.
    """
    crossing = (windows.full >= cuts).any(axis=1) & positive[windows.owner]
    highest = np.full(windows.texts, -np.inf)
    np.maximum.at(highest, windows.owner[crossing], windows.first[crossing].max(axis=1))
    caught = highest[highest > -np.inf]
    # Rounded down: a threshold above the one found would lose more.
    return math.floor(float(np.quantile(caught, lost, method="lower")) * 1e4) / 1e4


def cost(
    windows: Windows, positive: Flags, points: Mapping[str, Mapping[str, float]], below: float
) -> dict[str, float]:
    """Shares settled, and of the caught positives and false alarms lost, by operating point."""
    settled = windows.settled(below)
    harmless = ~positive[windows.owner]
    found = {
        "windows": float(len(settled)),
        "settled": share(settled),
        "settled_harmless": share(settled[harmless]),
    }
    for name, point in points.items():
        cuts = np.array([point[label] for label in LABELS])
        alone, behind = windows.flagged(cuts), windows.flagged(cuts, below)
        found[f"{name}: positives caught"] = float((alone & positive).sum())
        found[f"{name}: lost"] = _share_lost(alone & positive, behind & positive)
        found[f"{name}: false alarms"] = float((alone & ~positive).sum())
        found[f"{name}: false alarms lost"] = _share_lost(alone & ~positive, behind & ~positive)
    return found


def share(flags: Flags) -> float:
    """How many of them are set, 0 of none."""
    return float(flags.sum() / max(1, len(flags)))


def _share_lost(alone: Flags, behind: Flags) -> float:
    return float(1.0 - behind.sum() / max(1, alone.sum()))
