"""The checkpoint's own scores, from the unchanged model, for `sluice guard verify`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.errors import Misconfigured
from pipeline.guards import cards, checkpoint, export, prefill
from pipeline.guards.cards import Card
from pipeline.guards.checkpoint import DTYPES, Checkpoint
from pipeline.guards.prefill import Answers
from pipeline.guards.recipes import Recipe
from pipeline.guards.verify import Texts


def reference(card: Card, source: str, precision: str) -> Callable[[Texts], list[Any]]:
    """A function from texts to scores [labels]; raises Misconfigured with a remedy."""
    if precision not in DTYPES:
        raise Misconfigured(f"no precision {precision!r}", remedy=f"Use {', '.join(DTYPES)}")
    found = checkpoint.open_checkpoint(source, _recipe(card))
    own = cards.sha256_of(found.folder / "tokenizer.json")
    if own != cards.sha256_of(card.tokenizer):
        raise Misconfigured(
            f"{source} has another tokenizer than guard {card.name}",
            remedy="Give the checkpoint that the guard was exported from",
        )
    model, expected = found.model(precision), _answers(card, found)
    return lambda texts: export.reference_scores(card, found, model, expected, texts)


def tolerance(card: Card, precision: str) -> float:
    """How far a score may be off by rounding alone, in the guard or in the checkpoint."""
    return max(export.TOLERANCE[precision], *(each.tolerance for each in card.golden))


def _answers(card: Card, found: Checkpoint) -> Answers | None:
    if card.template is None:
        return None
    codes = [name for name in card.classes if name not in {"safe", "unsafe", "*"}]
    return prefill.answers(found.tokenizer, card.template.continuation, codes)


def _recipe(card: Card) -> Recipe:
    """What a card says of its kind, to check a checkpoint against."""
    return Recipe(
        name=card.name,
        title=card.title,
        activation=card.activation,
        classes=card.classes,
        labels=card.labels,
        roles=tuple(sorted(card.roles)),
        license=card.license,
        buckets=card.buckets,
        overlap=card.window.overlap,
        context_length=card.window.context_length,
    )
