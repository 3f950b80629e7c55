"""Make the first-stage guard: `python -m pipeline.guards.first_stage`.

Trains on the data of the default guard, finds below which score it may settle a
window before that guard, measures what that costs, and writes
`triton_models/first`. Minutes on one core. `--measure` keeps the trained weights
and does the rest: what to run when the default guard has changed.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import SluiceError
from pipeline.guards import calibrate, cards, data, first_folder, measure, publish, train
from pipeline.guards.bag import Bag, PackedBag, from_minilm
from pipeline.guards.batches import Windower
from pipeline.guards.cards import Card
from pipeline.guards.cascade_cost import Flags, Windows, by_window, cost, share, threshold
from pipeline.guards.data import LABELS, Example
from pipeline.guards.fit import Recipe, fit
from pipeline.guards.publish import PlainTokenizer

OPSET = 17
MOST_LOST = 0.006
"""Share of what the default guard catches that may be lost, on the half of dev that fits it."""
LEAST_SHOWN = 50
"""Harmless texts of a source, for a figure of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train unless told otherwise, then measure and write; returns the exit code."""
    options = _options(arguments)
    os.nice(options.nice)
    torch.set_num_threads(1)
    try:
        if not options.measure:
            export(trained(options), first_folder.weights(options.output))
        publish_first(options.output, options.full, options.data)
    except SluiceError as error:
        print(f"error: {error}", flush=True)
        return 2
    return 0


def trained(options: argparse.Namespace) -> Bag:
    """Train, or resume training, and return the network."""
    recipe = Recipe(
        seed=options.seed,
        epochs=options.epochs,
        tokens=8192,
        documents=256,
        rate=1.5e-3,
        head_rate=1.5e-3,
        hidden_words=0.15,
        half=False,
    )
    rows = data.load(options.data, "train")
    start = train.checkpoint_folder()
    torch.manual_seed(recipe.seed)
    bag = from_minilm(start, len(LABELS))
    cut = Windower(PlainTokenizer(start / "tokenizer.json"))
    options.state.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        options.state.unlink(missing_ok=True)
    fit(bag, lambda epoch: train.epoch_rows(rows, recipe.seed, epoch), cut, recipe, options.state)
    return bag


def export(bag: Bag, path: Path) -> None:
    """Write the graph: two int64 inputs [rows, tokens], `logits` out, tables in int8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = torch.ones(2, 16, dtype=torch.long)
    free = {0: "rows", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            PackedBag(bag).eval(),
            (shape, shape),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A first stage's graph and its calibration, and the full guard behind it."""

    weights: Path
    scale: calibrate.Array
    bias: calibrate.Array
    full: Card
    full_weights: Path
    cut: Windower

    def windows(self, rows: Sequence[Example]) -> Windows:
        """Every window of some texts with both guards' scores."""
        owner, first = by_window(self.weights, rows, self.cut)
        _, second = by_window(self.full_weights, rows, self.cut)
        return Windows(
            owner=owner,
            first=calibrate.scores(first, self.scale, self.bias),
            full=self.full.scores(second.astype(np.float32)).astype(np.float64),
            texts=len(rows),
        )

    def cuts(self, labels: Sequence[str] = LABELS) -> calibrate.Array:
        """The full guard's balanced thresholds; above every score for other labels."""
        point = self.full.operating_points["balanced"]
        return np.array([point[label] if label in labels else 2.0 for label in LABELS])


def publish_first(output: Path, full_folder: Path, folder: Path) -> None:
    """Calibrate the exported graph, measure it before the full guard, write the folder."""
    full = cards.load(full_folder)
    weights = first_folder.weights(output)
    cut, rows = Windower(PlainTokenizer(full.tokenizer)), data.load(folder, "dev")
    half = calibrate.for_fitting(rows)
    logits = measure.logits(weights, rows, cut, threads=1).astype(np.float64)
    targets = np.array([row.targets for row in rows])
    known = np.array([row.weights for row in rows])
    scale, bias = calibrate.platt(logits[half], targets[half], known[half])
    pair = Pair(
        weights=weights,
        scale=np.round(scale, 4),
        bias=np.round(bias, 4),
        full=full,
        full_weights=first_folder.weights(full_folder),
        cut=cut,
    )
    values = calibrate.scores(logits, pair.scale, pair.bias)
    points = calibrate.operating_points(values[half], targets[half], known[half])
    held = [row for row, seen in zip(rows, half, strict=True) if not seen]
    measured = _measure(pair, rows, half)
    figures = first_folder.Figures(
        scale=pair.scale.tolist(),
        bias=pair.bias.tolist(),
        points=points,
        below=measured.below,
        held=measured.held,
        harmless=measured.harmless,
        ranking=measure.dev_figures(values[~half], held, points)["tables"]["Dev, by label"],
        attacks=_attacks(folder, pair, measured.below),
    )
    golden = publish.golden_scores(weights, cut, pair.scale, pair.bias)
    first_folder.write(output, full_folder, full, figures, golden)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    below: float
    held: Mapping[str, float]
    harmless: Mapping[str, float]


def _measure(pair: Pair, rows: Sequence[Example], half: Flags) -> _Measured:
    """The threshold from one half of dev, and what it costs and settles on the other."""
    windows = pair.windows(rows)
    positive = np.array([any(row.targets) for row in rows])
    below = threshold(windows.of(half), positive, pair.cuts(), MOST_LOST)
    sources = np.array([row.source for row in rows])
    groups = {name: (sources == name) & ~positive & ~half for name in sorted(set(sources.tolist()))}
    return _Measured(
        below=below,
        held=cost(windows.of(~half), positive, pair.full.operating_points, below),
        harmless={
            name: share(windows.of(group).settled(below))
            for name, group in groups.items()
            if group.sum() >= LEAST_SHOWN
        },
    )


def _attacks(folder: Path, pair: Pair, below: float) -> dict[str, dict[str, float]]:
    """CyberSecEval's sets, never trained on: share flagged without and behind the first stage."""
    found = {}
    for name, texts, labels in measure._cyberseceval_sets(folder / "cyberseceval"):
        empty = tuple(0.0 for _ in LABELS)
        rows = [Example(text=t, targets=empty, weights=empty, source=name) for t in texts]
        windows, cuts = pair.windows(rows), pair.cuts(labels)
        found[f"{name}: {' or '.join(labels)}"] = {
            "texts": float(len(texts)),
            "windows settled": share(windows.settled(below)),
            "flagged alone": share(windows.flagged(cuts)),
            "flagged behind": share(windows.flagged(cuts, below)),
        }
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; data comes from SLUICE_TRAINING_DATA."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.guards.first_stage", description=__doc__
    )
    models = train.REPOSITORY / "triton_models"
    folder = os.environ.get("SLUICE_TRAINING_DATA")
    given = Path(folder) if folder else train.REPOSITORY.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=given)
    parser.add_argument("--output", type=Path, default=models / "first")
    parser.add_argument("--full", type=Path, default=models / "default")
    parser.add_argument("--state", type=Path, default=train.REPOSITORY / ".sluice" / "first.pt")
    parser.add_argument("--seed", type=int, default=20261125)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--measure", action="store_true", help="keep the weights; measure again")
    parser.add_argument("--fresh", action="store_true", help="drop a kept training state")
    parser.add_argument("--nice", type=int, default=10)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
