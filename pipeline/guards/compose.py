"""Long training documents made of short rows.

Attacks and harms hide in long harmless text, and long text is not an attack:
both kinds are composed here from rows that are labelled already.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pipeline.guards.data import LABELS, PLACE, Example

INJECTION = PLACE["injection"]
JAILBREAK = PLACE["jailbreak"]
UNSAFE = PLACE["unsafe"]
JOINTS = (" ", "\n", "\n\n", ". ", "\n- ", "\n---\n")
# Whole books are not needed to learn "somewhere in here".
HOST_CHARACTERS = 300


def composed(rows: Sequence[Example], count: int, rng: random.Random) -> list[Example]:
    """Return `count` documents: a third each attack, harm and harmless."""
    hosts = [row for row in rows if _harmless(row)]
    attacks = [row for row in rows if row.targets[INJECTION] > 0 and len(row.text) < 400]
    harms = [row for row in rows if _harmful(row)]
    made = []
    for index in range(count):
        guests = (attacks, harms, hosts)[index % 3]
        host = rng.sample(hosts, rng.randint(1, 3))
        made.append(_hide(rng.choice(guests), host, rng))
    return made


def _hide(guest: Example, host: Sequence[Example], rng: random.Random) -> Example:
    """Put the guest among the host's texts; it decides the labels."""
    parts = [row.text[:HOST_CHARACTERS] for row in host]
    parts.insert(rng.randint(0, len(parts)), guest.text)
    source = f"composed:{guest.source}"
    return replace(guest, text=rng.choice(JOINTS).join(parts), context="", source=source)


def _harmless(row: Example) -> bool:
    """Safe for both heads, short enough to host something."""
    return not any(row.targets) and min(row.weights[UNSAFE], row.weights[JAILBREAK]) > 0


def _harmful(row: Example) -> bool:
    """An unsafe request that is no attack on the model."""
    attack = row.weights[INJECTION] > 0 and row.weights[JAILBREAK] > 0
    return row.targets[UNSAFE] > 0 and attack and not row.context and len(row.text) < 400


def recontextualised(
    rows: Sequence[Example], questions: Sequence[str], count: int, rng: random.Random
) -> list[Example]:
    """Free statements shown as completions to a harmless question.

    Without these, a completion with its prompt would only be seen in the two
    sources that have responses.
    """
    free = [row for row in rows if _statement(row)]
    picked = rng.sample(free, min(count, len(free)))
    silent = tuple(0.0 if name in ("injection", "jailbreak") else 1.0 for name in LABELS)
    return [
        replace(
            row,
            context=rng.choice(questions),
            weights=tuple(w * keep for w, keep in zip(row.weights, silent, strict=True)),
        )
        for row in picked
    ]


def _statement(row: Example) -> bool:
    """Said rather than asked: harmless, or from a source without prompts."""
    said = row.weights[INJECTION] == 0 or not row.targets[UNSAFE]
    return said and row.weights[UNSAFE] > 0 and not row.context
