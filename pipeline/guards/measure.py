"""What the guard is worth: the figures of the card's README."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.guards import calibrate, metrics, quantise
from pipeline.guards.batches import Windower, batches
from pipeline.guards.calibrate import Array
from pipeline.guards.data import LABELS, PLACE, Example

COMPARED_ROWS = 2000
MOST_BATCH_DIFFERENCE = 1e-3
# Some twenty attacks are among the rows compared: one that changes its place costs 0.007.
MOST_AUPRC_LOSS = {"unsafe": 0.003, "injection": 0.01, "jailbreak": 0.01}
# A form as quick by a tenth is not worth more: decisions near a threshold change.
MOST_MEAN_DIFFERENCE = 0.004
MOST_BYTES = 24_000_000
Row = dict[str, Any]
Points = Mapping[str, Mapping[str, float]]


def logits(
    path: Path, rows: Sequence[Example], windower: Windower, threads: int = 2
) -> NDArray[np.float32]:
    """Logits [rows, labels] of a graph, maximum over each row's windows."""
    session = quantise.session(path, threads)
    result = np.zeros((len(rows), len(LABELS)), np.float32)
    for indexes, batch in batches(rows, windower, tokens=1024, documents=8):
        found = session.run(None, {"input_ids": batch.ids, "attention_mask": batch.mask})[0]
        np.maximum.at(lowest := np.full_like(batch.targets, -np.inf), batch.owner, found)
        result[indexes] = lowest
    return result


def compare(forms: Mapping[str, Path], rows: Sequence[Example], windower: Windower) -> list[Row]:
    """Size, speed, loss and steadiness of each form of the graph."""
    sample = random.Random(5).sample(list(rows), COMPARED_ROWS)
    truth = np.array([row.targets for row in sample])
    known = np.array([row.weights for row in sample]) > 0
    compared, reference = [], None
    for name, path in forms.items():
        values = calibrate.scores(
            logits(path, sample, windower).astype(np.float64), np.array(1.0), np.array(0.0)
        )
        reference = values if reference is None else reference
        row: Row = {"form": name, "MB": path.stat().st_size / 1e6}
        for label in ("unsafe", "injection", "jailbreak"):
            place = PLACE[label]
            pick = known[:, place]
            row[f"AUPRC {label}"] = metrics.auprc(values[pick, place], truth[pick, place])
        row["mean difference"] = float(np.abs(values - reference).mean())
        row["batch difference"] = batch_difference(path, sample[:200], windower)
        compared.append(row | speeds(path))
    return compared


def batch_difference(path: Path, rows: Sequence[Example], windower: Windower) -> float:
    """Largest change of a score when its window runs alone or padded."""
    session = quantise.session(path, 2)
    worst = 0.0
    for _, batch in batches(rows, windower, tokens=1024, documents=8):
        length = int(batch.mask[0].sum())
        alone = _run(session, batch.ids[:1, :length], batch.mask[:1, :length])
        space = ((0, 0), (0, 128 - batch.ids.shape[1]))
        wide = _run(session, np.pad(batch.ids, space), np.pad(batch.mask, space))[:1]
        here = _run(session, batch.ids, batch.mask)[:1]
        worst = max(worst, float(np.abs(here - alone).max()), float(np.abs(here - wide).max()))
    return worst


def _run(session: Any, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
    """Uncalibrated scores of one batch."""
    found = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return calibrate.scores(found.astype(np.float64), np.array(1.0), np.array(0.0))


def speeds(path: Path) -> Row:
    """Texts per second by threads and tokens, and one short text's cost."""
    row: Row = {}
    for threads, tokens, size in ((2, 32, 8), (2, 128, 8), (1, 32, 1)):
        session = quantise.session(path, threads)
        ids = np.random.default_rng(1).integers(1000, 20000, (size, tokens))
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        spent = sorted(_seconds(partial(session.run, None, feed)) for _ in range(40))[20]
        if size == 1:
            row["ms 1x32, 1 core"] = spent * 1000.0
        else:
            row[f"texts/s {size}x{tokens}"] = size / spent
    return row


def _seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def choose(compared: Sequence[Row]) -> str:
    """Pick the quickest form that is small, steady and as good as fp32."""
    base = compared[0]
    fit = [
        row
        for row in compared
        if row["MB"] * 1e6 <= MOST_BYTES
        and row["batch difference"] <= MOST_BATCH_DIFFERENCE
        and row["mean difference"] <= MOST_MEAN_DIFFERENCE
        and all(
            base[f"AUPRC {label}"] - row[f"AUPRC {label}"] <= most
            for label, most in MOST_AUPRC_LOSS.items()
        )
    ]
    return str(max(fit, key=lambda row: float(row["texts/s 8x32"]))["form"])


def dev_figures(values: Array, rows: Sequence[Example], points: Points) -> Row:
    """All tables measured on the held half of dev."""
    truth = np.array([row.targets for row in rows])
    known = np.array([row.weights for row in rows]) > 0
    languages = np.array([row.language for row in rows])
    sources = np.array([row.source for row in rows])
    tables = {
        "Dev, by label": [
            _label_row(label, values[known[:, i], i], truth[known[:, i], i], points)
            for i, label in enumerate(LABELS)
        ],
        "Dev, `unsafe` by language": _groups(values, truth, known, languages, points),
        "Dev, `unsafe` by source with both classes": _groups(values, truth, known, sources, points),
        "False positives by harmless source (balanced / strict)": _harmless(
            values, truth, sources, points
        ),
    }
    return {"tables": tables}


def _label_row(label: str, values: Array, truth: Array, points: Points) -> Row:
    """One label's figures with bootstrap intervals."""
    auprc = metrics.interval(metrics.auprc, values, truth)
    roc = metrics.interval(metrics.roc_auc, values, truth)
    row: Row = {
        "label": label,
        "n": len(truth),
        "positive": int(truth.sum()),
        "AUPRC": metrics.auprc(values, truth),
        "AUPRC 95%": f"{auprc[0]:.3f}-{auprc[1]:.3f}",
        "ROC-AUC": metrics.roc_auc(values, truth),
        "ROC 95%": f"{roc[0]:.3f}-{roc[1]:.3f}",
        "recall at 1% FPR": metrics.recall_at(values, truth, 0.01),
        "recall at 5% FPR": metrics.recall_at(values, truth, 0.05),
    }
    for name, point in points.items():
        flagged = values >= point[label]
        row[f"{name} FPR"] = float(np.mean(flagged[truth == 0]))
        row[f"{name} recall"] = float(np.mean(flagged[truth > 0])) if truth.sum() else float("nan")
    row["balanced F1"] = metrics.f1(values, truth, points["balanced"][label])
    return row


def _groups(
    values: Array, truth: Array, known: NDArray[np.bool_], names: NDArray[Any], points: Points
) -> list[Row]:
    """`unsafe` per group that has both classes."""
    place = PLACE["unsafe"]
    table = []
    for name in sorted(set(names.tolist())):
        pick = (names == name) & known[:, place]
        group, real = values[pick, place], truth[pick, place]
        if 0 < real.sum() < len(real):
            row = _label_row("unsafe", group, real, points)
            kept = ("n", "positive", "AUPRC", "AUPRC 95%", "ROC-AUC", "balanced FPR")
            table.append({"group": name} | {key: row[key] for key in (*kept, "balanced recall")})
    return table


def _harmless(values: Array, truth: Array, names: NDArray[Any], points: Points) -> list[Row]:
    """Share of harmless texts that cross a threshold, by source."""
    table = []
    for name in sorted({str(n) for n in names if str(n).startswith(("benign", "coconot_pref"))}):
        pick = (names == name) & (truth.sum(axis=1) == 0)
        row: Row = {"source": name, "n": int(pick.sum())}
        for label in ("unsafe", "injection", "jailbreak"):
            found = values[pick, PLACE[label]]
            shares = [float(np.mean(found >= point[label])) for point in points.values()]
            row[label] = " / ".join(f"{share:.3f}" for share in shares)
        table.append(row)
    return table


def cyberseceval(
    folder: Path,
    weights: Path,
    windower: Windower,
    fitted: tuple[Array, Array],
    points: Points,
) -> Row:
    """Meta's sets, evaluation only: share flagged per set and point."""
    table = []
    for name, texts, labels in _cyberseceval_sets(folder / "cyberseceval"):
        empty = tuple(0.0 for _ in LABELS)
        rows = [Example(text=t, targets=empty, weights=empty, source=name) for t in texts]
        values = calibrate.scores(logits(weights, rows, windower).astype(np.float64), *fitted)
        row: Row = {"set": name, "n": len(texts), "flagged by": " or ".join(labels)}
        for point, cuts in points.items():
            over = [values[:, PLACE[label]] >= cuts[label] for label in labels]
            row[point] = float(np.mean(np.any(over, axis=0)))
        table.append(row)
    return {"CyberSecEval, share flagged (never trained on)": table}


def _cyberseceval_sets(folder: Path) -> list[tuple[str, list[str], tuple[str, ...]]]:
    """(name, texts, labels that count as a flag) of each set."""
    attack: tuple[str, ...] = ("injection", "jailbreak")
    hazard: tuple[str, ...] = ("unsafe",)
    prefix = "CybersecurityBenchmarks__datasets__"
    suffix = "_multilingual_machine_translated.json"
    files = {
        "injection": (folder / "prompt_injection.json", "user_input"),
        "injection, other languages": (
            folder / f"{prefix}prompt_injection__prompt_injection{suffix}",
            "user_input",
        ),
        "false refusal (all harmless)": (folder / "mitre_frr.json", "mutated_prompt"),
        "false refusal, other languages": (
            folder / f"{prefix}mitre_frr__frr{suffix}",
            "mutated_prompt",
        ),
        "interpreter abuse (all harmful)": (folder / "interpreter.json", "mutated_prompt"),
    }
    sets: list[tuple[str, list[str], tuple[str, ...]]] = []
    for name, (path, key) in files.items():
        if not path.is_file():
            continue
        rows = json.loads(path.read_text(encoding="utf-8"))
        if name.startswith("injection"):
            for kind in ("direct", "indirect"):
                texts = [str(row[key]) for row in rows if row["injection_type"] == kind]
                sets.append((f"{name}, {kind}", texts, attack))
        else:
            texts = [str(row[key]) for row in rows]
            sets.append((name, texts, hazard))
            if name.startswith("false refusal"):
                sets.append((name, texts, attack))
    return sets
