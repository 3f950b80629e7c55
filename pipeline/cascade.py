"""Which guards a first stage may stand before. Pure.

A first stage settles windows, so it must see the very windows of the guard
behind it: the same tokens, cut and framed alike. And it must give every score
that the guard behind it gives, or a policy would wait for one in vain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import Misconfigured
from pipeline.guards.cards import Card
from pipeline.scoring import Guard


def put_first(first: Guard, guards: Sequence[Guard]) -> list[Guard]:
    """The guards, with `first` before each that it fits.

    Raises Misconfigured when its card has no [cascade], or it fits none.
    """
    if not first.card.settles_below:
        raise Misconfigured(
            f"the card of guard {first.card.name} does not say below which score it settles",
            remedy="Name a guard with a [cascade] section as guards.first, or none",
        )
    placed = [replace(each, first=first) if _fits(first, each) else each for each in guards]
    if not any(each.first for each in placed):
        raise Misconfigured(
            f"guard {first.card.name} cannot stand before any of guards.names: tokenizer,"
            " windows, labels and roles must be those of the guard behind it",
            remedy="Leave out guards.first",
        )
    return placed


def unmeasured(guards: Sequence[Guard]) -> list[str]:
    """The guards before which a first stage stands that was measured before other weights."""
    return [
        each.card.name
        for each in guards
        if each.first and each.first.card.measured_before != each.card.model_digest
    ]


def _fits(first: Guard, full: Guard) -> bool:
    return (
        _shape(first.card) == _shape(full.card)
        and set(first.card.labels) >= set(full.card.labels)
        and first.card.roles >= full.card.roles
    )


def _shape(card: Card) -> tuple[object, ...]:
    return (
        card.tokenizer_digest,
        card.window,
        card.pad_id,
        card.template_digest,
        card.normalise,
        card.taxonomy,
    )
