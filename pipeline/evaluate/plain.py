"""Sets of one's own: JSON lines, CSV, and this project's training form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pipeline.errors import Misconfigured
from pipeline.evaluate.items import HAZARDS, Item, known
from pipeline.evaluate.reading import Row
from pipeline.events import Kind
from pipeline.taxonomy import spelt

FIELDS: Final = (
    "id", "text", "label", "hazard", "attack", "categories", "language", "kind", "prompt",
)  # fmt: skip
"""What a line or a column may hold; `text` and one label are required."""
_ATTACKS: Final = frozenset({"PI", "JB"})


def mapped(rows: Iterable[Row], columns: Mapping[str, str]) -> Iterator[Item]:
    """Items of rows whose fields are named as `columns` says, or as in `FIELDS`.

    Raises Misconfigured by field, and for a mapping that no row can use.
    """
    name = {own: columns.get(own, own) for own in FIELDS}
    absent, kinds = set(columns.values()), set()
    for row in rows:
        absent.difference_update(row.fields)
        item = _item(row, name)
        kinds.add(item.kind)
        yield item
    if absent:
        raise Misconfigured(
            f"--column names {min(absent)!r}, a field that no row has", remedy="Correct --column"
        )
    if "prompt" in columns and kinds == {Kind.PROMPT}:
        raise Misconfigured(
            "--column maps a prompt, but no row is a completion",
            remedy="Map the column that says so with kind=COLUMN, or leave the prompt out",
        )


def _item(row: Row, name: Mapping[str, str]) -> Item:
    hazard, attack = row.maybe(name["hazard"]), row.maybe(name["attack"])
    label = row.maybe(name["label"])
    if label is None and hazard is None and attack is None:
        row.wrong(name["label"], "is missing", "Map it: --column label=COLUMN")
    # One plain label stands for whichever head is measured.
    hazard, attack = (label if said is None else said for said in (hazard, attack))
    codes, kind = _hazards(row, name["categories"]), _kind(row, name["kind"])
    return Item(
        id=row.optional(name["id"]) or str(row.number),
        text=row.text(name["text"]),
        hazard=hazard,
        attack=attack,
        kind=kind,
        prompt=_context(row, name) if kind is Kind.COMPLETION else None,
        language=row.optional(name["language"]),
        categories={} if hazard is None else known(codes, positive=hazard),
    )


def _context(row: Row, name: Mapping[str, str]) -> str | None:
    """What a completion answers, unless that column holds the text itself."""
    return None if name["prompt"] == name["text"] else row.optional(name["prompt"]) or None


def _kind(row: Row, name: str) -> Kind:
    try:
        return Kind(row.optional(name) or Kind.PROMPT)
    except ValueError:
        row.wrong(name, "is neither prompt nor completion", "Correct it, or leave it out")


def _codes(row: Row, name: str) -> list[str]:
    """Category codes from a list, or from one text with commas or spaces."""
    value = row.fields.get(name) or []
    found = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(code, str) for code in found):
        row.wrong(name, "is not a list of codes", "Write S1 to S14")
    return found


def _hazards(row: Row, name: str) -> list[str]:
    """As `_codes`, of the taxonomy only, in capitals or not."""
    found = sorted(spelt(_codes(row, name)))
    if not set(found) <= set(HAZARDS):
        row.wrong(name, "names a category that there is not", "Write S1 to S14")
    return found


def training(rows: Iterable[Row]) -> Iterator[Item]:
    """Items in the form the guard is trained from.

    `y` holds for the heads in `h`: h hazard, a attack, b both. With both, an
    attack must be named by `a` or by a code: a harmful wish is none by itself.
    """
    for row in rows:
        positive, codes, head = row.flag("y"), _codes(row, "c"), row.optional("h")
        if head not in {"h", "a", "b"}:
            row.wrong("h", "is none of h, a, b", "Say which head the label is for")
        response = row.optional("r")
        attack = bool(row.maybe("a")) or bool(_ATTACKS.intersection(codes))
        hazard = positive if head in "hb" else None
        yield Item(
            id=str(row.number),
            text=response or row.text("t"),
            prompt=row.text("t") if response else None,
            kind=Kind.COMPLETION if response else Kind.PROMPT,
            hazard=hazard,
            attack=None if head == "h" else positive if head == "a" else attack,
            language=row.optional("l"),
            categories={} if hazard is None else known(codes, positive=positive),
            tags={"source": row.optional("s")},
        )


def columns_of(given: Iterable[str]) -> dict[str, str]:
    """`text=prompt,label=toxic` as a mapping; raises Misconfigured."""
    found = {}
    for pair in (pair for group in given for pair in group.split(",")):
        own, _, theirs = pair.strip().partition("=")
        if own not in FIELDS or not theirs:
            raise Misconfigured(
                f"--column {pair!r} maps nothing",
                remedy=f"Write FIELD=COLUMN with a field of: {', '.join(FIELDS)}",
            )
        found[own] = theirs
    return found
