"""The training loop: seeded, resumable, on the processor."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import Misconfigured
from pipeline.guards.batches import Batch, Windower, batches
from pipeline.guards.data import LABELS, Example
from pipeline.guards.encoder import GuardEncoder

# Share of the loss: one decision per text weighs more than 14 thin columns.
LABEL_WEIGHT = tuple(
    {"unsafe": 3.0, "injection": 2.0, "jailbreak": 2.0}.get(n, 1.0) for n in LABELS
)
MASK_ID = 103  # [MASK]; every id above it is a word or a piece of one
REPORT_STEPS = 25
SAVE_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the result apart from the data.

    The rate rises for `warm_up_epochs`, stays, and falls to zero over the last
    `cool_down` of the run: until the fall begins a run does not depend on
    `epochs`, so an interrupted one may be resumed with another length.
    """

    seed: int = 20261123
    epochs: float = 3.5
    tokens: int = 3072
    documents: int = 96
    rate: float = 1.5e-4
    head_rate: float = 5e-4
    warm_up_epochs: float = 0.04
    cool_down: float = 0.4
    decay: float = 0.01
    hidden_words: float = 0.06
    half: bool = True
    started_from: str = ""


def fit(
    model: GuardEncoder,
    epoch_rows: Callable[[int], Sequence[Example]],
    cut: Windower,
    recipe: Recipe,
    state: Path,
) -> None:
    """Train in place; resume from `state` when it exists.

    `epoch_rows(n)` must return the same rows for the same n in every run.
    """
    torch.manual_seed(recipe.seed)
    optimiser = _optimiser(model, recipe)
    done, finished = _resume(model, optimiser, state, recipe)
    if finished:
        print("training had finished: nothing is trained; --fresh trains again", flush=True)
        return
    step, began = 0, time.monotonic()
    for epoch in range(math.ceil(recipe.epochs)):
        rng = random.Random(f"{recipe.seed}/batches/{epoch}")
        plan = list(
            batches(
                epoch_rows(epoch), cut, tokens=recipe.tokens, documents=recipe.documents, rng=rng
            )
        )
        total = 0.0
        for index, (_, batch) in enumerate(plan):
            progress = (epoch + index / len(plan)) / recipe.epochs
            step += 1
            if step <= done or progress > 1.0:
                continue
            total = 0.98 * total + 0.02 * _step(model, optimiser, batch, progress, recipe)
            if step % REPORT_STEPS == 0:
                _report(step, progress, total, began)
            if step % SAVE_STEPS == 0:
                _save(model, optimiser, step, state, recipe, progress=progress)
    _save(model, optimiser, step, state, recipe, progress=1.0)


def _optimiser(model: GuardEncoder, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with a higher rate for the untrained head."""
    learnt = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    head = [value for name, value in learnt if name.startswith("head")]
    body = [value for name, value in learnt if not name.startswith("head")]
    groups = [{"params": body, "peak": recipe.rate}, {"params": head, "peak": recipe.head_rate}]
    return torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay, fused=True)


def _step(
    model: GuardEncoder,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    progress: float,
    recipe: Recipe,
) -> float:
    """One update; returns the loss. `progress` is 0..1 over all epochs."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * shape(progress, recipe)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.half):
        logits = model(_hide(torch.from_numpy(batch.ids), recipe), torch.from_numpy(batch.mask))
    loss = masked_loss(document_logits(logits.float(), batch), batch)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _hide(ids: Tensor, recipe: Recipe) -> Tensor:
    """Mask a few words: rare rows repeat and must not be learnt by heart."""
    hidden = (torch.rand(ids.shape) < recipe.hidden_words) & (ids > MASK_ID)
    return ids.masked_fill(hidden, MASK_ID)


def document_logits(logits: Tensor, batch: Batch) -> Tensor:
    """Maximum over each document's windows, as the worker takes it."""
    owner = torch.from_numpy(batch.owner)[:, None].expand_as(logits)
    empty = logits.new_full((len(batch.targets), logits.shape[1]), -math.inf)
    return empty.scatter_reduce(0, owner, logits, "amax", include_self=False)


def masked_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy over what the rows say, weighted by label."""
    weights = torch.from_numpy(batch.weights) * torch.tensor(LABEL_WEIGHT)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.from_numpy(batch.targets), reduction="none"
    )
    # Documents, not known labels, share the step: a row that says little
    # must not be drowned by one that denies fourteen categories.
    return (losses * weights).sum() / len(batch.targets) / 5.0


def score(model: GuardEncoder, rows: Sequence[Example], cut: Windower) -> NDArray[np.float32]:
    """Logits `[rows, labels]` of every row, in order, without dropout."""
    model.eval()
    result = np.zeros((len(rows), len(LABELS)), np.float32)
    with torch.inference_mode():
        for indexes, batch in batches(rows, cut, tokens=8192, documents=128):
            logits = model(torch.from_numpy(batch.ids), torch.from_numpy(batch.mask))
            result[indexes] = document_logits(logits, batch).numpy()
    return result


def shape(progress: float, recipe: Recipe) -> float:
    """Share of the peak rate at `progress`, 0..1 over all epochs."""
    rise = progress * recipe.epochs / recipe.warm_up_epochs
    fall = (1.0 - progress) / recipe.cool_down
    return max(min(rise, 1.0, fall), 0.0)


def _report(step: int, progress: float, loss: float, began: float) -> None:
    """Print one line of progress."""
    spent_s = time.monotonic() - began
    print(f"step {step:6d}  {progress:6.1%}  loss {loss:.4f}  {spent_s:6.0f} s", flush=True)


def _save(
    model: GuardEncoder,
    optimiser: torch.optim.Optimizer,
    step: int,
    state: Path,
    recipe: Recipe,
    *,
    progress: float,
) -> None:
    """Write a checkpoint beside the old one, then swap."""
    fresh = state.with_suffix(".new")
    kept = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "finished": progress >= 1.0,
        "recipe": repr(replace(recipe, epochs=0.0)),
        "epochs": recipe.epochs,
        "done_epochs": progress * recipe.epochs,
        "random": torch.get_rng_state(),
    }
    torch.save(kept, fresh)
    fresh.replace(state)


def same_run(kept: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a state lies on this recipe's path.

    Another length is the same path as long as neither rate had begun to fall.
    """
    if kept.get("recipe") != repr(replace(recipe, epochs=0.0)):
        return False
    steady = min(kept["epochs"], recipe.epochs) * (1.0 - recipe.cool_down)
    return bool(kept["epochs"] == recipe.epochs or kept["done_epochs"] < steady)


def _resume(
    model: GuardEncoder, optimiser: torch.optim.Optimizer, state: Path, recipe: Recipe
) -> tuple[int, bool]:
    """Load a checkpoint if there is one: (steps done, whether it finished).

    Raises Misconfigured when it belongs to another recipe.
    """
    if not state.is_file():
        return 0, False
    kept = torch.load(state, weights_only=True)
    if not same_run(kept, recipe):
        raise Misconfigured(
            f"training state {state.name} belongs to another recipe",
            remedy="Pass --fresh to train from the start, or --state for another file.",
        )
    model.load_state_dict(kept["model"])
    optimiser.load_state_dict(kept["optimiser"])
    torch.set_rng_state(kept["random"])
    print(f"resumed at step {kept['step']}", flush=True)
    return int(kept["step"]), bool(kept.get("finished"))
