"""Labelled rows as training examples: targets, masks and weights.

A source often labels one thing only (hate sets say nothing about weapons),
so each example carries a weight per label and 0 means "not said".
"""

from __future__ import annotations

import json
import lzma
import random
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Misconfigured

HAZARDS = tuple(f"S{number}" for number in range(1, 15))
LABELS = (*HAZARDS, "unsafe", "injection", "jailbreak")
PLACE = {label: index for index, label in enumerate(LABELS)}
ATTACK_CODES = {"PI": "injection", "JB": "jailbreak"}
# Longer rows cost many windows and teach one thing.
LONGEST_CHARACTERS = 700
# Under 400 rows each in the public sources, against 22,000 for S10.
RARE = frozenset({"S3", "S4", "S5", "S8", "S9", "S11", "S13"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One text, optionally answering `context`, with what is known of it.

    `targets` are 0 or 1 and `weights` >= 0, both in the order of `LABELS`.
    """

    text: str
    targets: tuple[float, ...]
    weights: tuple[float, ...]
    source: str
    context: str = ""
    language: str = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one source contributes; see the head of `sources.toml`."""

    take: int
    negatives: str
    weight: float = 1.0
    only: tuple[str, ...] = ()


def sources() -> dict[str, Source]:
    """Read the committed table of sources."""
    table = tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))
    return {
        name: Source(**values | {"only": tuple(values.get("only", ()))})
        for name, values in table.items()
    }


def load(folder: Path, split: str) -> list[Example]:
    """Read `train` or `dev`; raises Misconfigured when the folder lacks it."""
    path = folder / f"{split}.jsonl.xz"
    if not path.is_file():
        raise Misconfigured(
            f"training data {path.name} is not in {folder}",
            remedy="Set SLUICE_TRAINING_DATA to the folder that holds it.",
        )
    table = sources()
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [example(json.loads(line), table) for line in lines]


def example(row: dict[str, object], table: dict[str, Source]) -> Example:
    """Turn one row of the bundle into an example.

    A source absent from the table (dev-only ones) says nothing per category.
    """
    source = str(row["s"])
    known = table.get(source, Source(take=0, negatives="none"))
    codes = tuple(str(code) for code in _list(row.get("c")))
    targets, weights = label(
        positive=bool(row["y"]), codes=codes, head=str(row["h"]), negatives=known.negatives
    )
    response = str(row.get("r") or "")
    return Example(
        text=response or str(row["t"]),
        context=str(row["t"]) if response else "",
        targets=targets,
        weights=_said(weights, known),
        source=source,
        language=str(row["l"]),
    )


def _said(weights: Sequence[float], known: Source) -> tuple[float, ...]:
    """Weights after the source's own: none outside the labels it may teach."""
    taught = known.only or LABELS
    return tuple(
        weight * known.weight if name in taught else 0.0
        for name, weight in zip(LABELS, weights, strict=True)
    )


def label(
    *, positive: bool, codes: Sequence[str], head: str, negatives: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return targets and weights for one row.

    `head` is h (hazard), a (attack) or b (both); the other head's labels get
    weight 0, so an attack never becomes an unsafe target by itself.
    """
    truth = dict.fromkeys(LABELS, 0.0)
    known = dict.fromkeys(LABELS, 0.0)
    if head in "hb":
        known |= _known_hazards(positive and bool(set(codes) & set(HAZARDS)), positive, negatives)
        truth["unsafe"] = float(positive)
        for code in set(codes) & set(HAZARDS) if positive else ():
            truth[code] = known[code] = 1.0
    if head in "ab":
        named = {ATTACK_CODES[code] for code in codes if code in ATTACK_CODES}
        # An injection may also read like a jailbreak: the other stays unsaid.
        known |= dict.fromkeys(named or ("injection", "jailbreak"), 1.0)
        truth |= dict.fromkeys(named, 1.0)
    return tuple(truth[name] for name in LABELS), tuple(known[name] for name in LABELS)


def _known_hazards(categorised: bool, positive: bool, negatives: str) -> dict[str, float]:
    """Weights of the hazard head before the row's own codes are set."""
    known = {"unsafe": 1.0}
    if negatives == "hate":
        # Insults without a group (harassment, profanity) are not known S10.
        known["S10"] = 1.0 if categorised or not positive else 0.0
    elif negatives == "all" and not positive:
        known |= dict.fromkeys(HAZARDS, 1.0)
    elif negatives == "all" and categorised:
        # Half: harms overlap, and a source names only one of them.
        known |= dict.fromkeys(HAZARDS, 0.5)
    return known


def draw(rows: Iterable[Example], rng: random.Random) -> list[Example]:
    """Draw one epoch: `take` rows per source, rare categories twice."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        if len(row.text) <= LONGEST_CHARACTERS:
            groups[row.source].append(row)
    chosen: list[Example] = []
    table = sources()
    for source in sorted(groups):
        take = table[source].take if source in table else 0
        chosen += _repeat(groups[source], take, rng)
    chosen += [row for row in chosen if _rare(row)]
    rng.shuffle(chosen)
    return chosen


def _repeat(rows: list[Example], take: int, rng: random.Random) -> list[Example]:
    """Take rows without replacement as often as needed to reach `take`."""
    full, rest = divmod(take, len(rows))
    return rows * full + rng.sample(rows, rest)


def _rare(row: Example) -> bool:
    """Whether a rare category is positive in the row."""
    return any(row.targets[PLACE[name]] > 0 for name in RARE)


def _list(value: object) -> list[object]:
    """Read an optional JSON list."""
    return list(value) if isinstance(value, list) else []
