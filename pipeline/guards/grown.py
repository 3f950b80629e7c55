"""Requests grown from tables of voices, tasks and slots, as many as wanted.

Each epoch draws other combinations. One task in nine is never trained on: it
measures whether the guard learnt the difference or the phrases.
"""

from __future__ import annotations

import random
import re
import tomllib
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.guards.contrast import made
from pipeline.guards.data import Example

HELD_SHARE = 9
ROWS = {
    "coding": 5200,
    "malware": 1300,
    "mention": 2600,
    "attack": 700,
    "harmful": 5200,
    "harmless": 5200,
    "coding_foreign": 1500,
}
LONGEST_REQUIREMENTS = 7
SLOT = re.compile(r"\{(\w+)\}")
Table = dict[str, Any]


def grown(seed: str, *, held: bool = False, share: float = 1.0) -> list[Example]:
    """Return `share` of `ROWS` examples; `held` takes only the held tasks."""
    rng = random.Random(f"{seed}/grown/{held}")
    makers = {
        "coding": _coding,
        "malware": _malware,
        "mention": _mentions,
        "attack": _attacks,
        "harmful": _harmful,
        "harmless": _harmless,
        "coding_foreign": _foreign,
    }
    rows: list[Example] = []
    for kind, maker in makers.items():
        endless = maker(rng, held)
        rows += [next(endless) for _ in range(round(ROWS[kind] * share))]
    return rows


def _coding(rng: random.Random, held: bool) -> Iterator[Example]:
    """Programming requests without a victim, from one line to a page."""
    table = _table("coding.toml")
    tasks = _kept([task for group in table["benign"].values() for task in group], held)
    while True:
        yield made(_request(table, tasks, rng), (), False, "coding")


def _malware(rng: random.Random, held: bool) -> Iterator[Example]:
    """The same voices around a task that has a victim."""
    table = _table("coding.toml")
    choices = [
        (code, task) for code, group in table["harmful"].items() for task in _kept(group, held)
    ]
    benign = [task for group in table["benign"].values() for task in group]
    while True:
        code, task = rng.choice(choices)
        yield made(_request(table, [task], rng, benign), (code,), True, "malware")


def _request(
    table: Table, tasks: Sequence[str], rng: random.Random, second: Sequence[str] | None = None
) -> str:
    """A voice around a task, perhaps with a preface and requirements."""
    parts = [rng.choice(table["voices"])]
    if rng.random() < 0.2:
        parts.insert(0, rng.choice(table["context"]))
    if rng.random() < 0.6:
        parts += rng.sample(table["requirements"], rng.randint(1, LONGEST_REQUIREMENTS))
    first, chosen = rng.choice(tasks), _lists(table)
    chosen |= {"task": [first], "task2": list(second or tasks)}
    # One request speaks of one language and one kind of program.
    chosen |= {name: [rng.choice(chosen[name])] for name in ("language", "artefact")}
    return filled(" ".join(parts), chosen, rng)


def _lists(table: Table) -> dict[str, list[str]]:
    """The slots of the programming table."""
    names = {
        "language": "languages",
        "artefact": "artefacts",
        "platform": "platforms",
        "library": "libraries",
    }
    return {slot: table[name] for slot, name in names.items()}


def _mentions(rng: random.Random, held: bool) -> Iterator[Example]:
    """Harmless sentences with alarming words."""
    table = _table("mentions.toml")
    groups = [_kept(group, held) for group in table["safe"].values()]
    while True:
        text = rng.choice(rng.choice(groups))
        yield made(_cased(filled(text, table["slots"], rng), rng), (), False, "mention")


def _attacks(rng: random.Random, held: bool) -> Iterator[Example]:
    """Attacks with the same words; hazards stay unsaid."""
    table = _table("mentions.toml")
    choices = [
        (code, text)
        for name, code in (("injection", "PI"), ("jailbreak", "JB"))
        for text in _kept(table["attack"][name], held)
    ]
    while True:
        code, text = rng.choice(choices)
        shown = _cased(filled(text, table["slots"], rng), rng)
        yield made(shown, (code,), True, "attack", head="a")


def _harmful(rng: random.Random, held: bool) -> Iterator[Example]:
    """Every hazard as often as the others, in many voices."""
    table = _table("hazards.toml")
    groups = {code: _kept(group, held) for code, group in table["harmful"].items()}
    voices = [*table["voices"]["both"], *table["voices"]["harmful"]]
    while True:
        code = rng.choice([code for code, group in groups.items() if group])
        yield made(_said(table, voices, groups[code], rng), (code,), True, "harmful")


def _harmless(rng: random.Random, held: bool) -> Iterator[Example]:
    """The benign twins of `_harmful`."""
    table = _table("hazards.toml")
    groups = [kept for group in table["harmless"].values() if (kept := _kept(group, held))]
    voices = [*table["voices"]["both"], *table["voices"]["harmless"]]
    while True:
        yield made(_said(table, voices, rng.choice(groups), rng), (), False, "harmless")


def _said(table: Table, voices: Sequence[str], phrases: Sequence[str], rng: random.Random) -> str:
    """One phrase in one voice."""
    phrase = filled(rng.choice(phrases), table["slots"], rng)
    return _cased(rng.choice(voices).replace("{}", phrase), rng)


def _foreign(rng: random.Random, held: bool) -> Iterator[Example]:
    """Programming requests in other languages."""
    table, programming = _table("coding_languages.toml"), _table("coding.toml")["languages"]
    known = {name: _kept(entry["tasks"], held) for name, entry in table.items()}
    languages = sorted(name for name, tasks in known.items() if tasks)
    while True:
        language = rng.choice(languages)
        voice = rng.choice(table[language]["voices"])
        text = filled(voice, {"t": known[language], "p": programming}, rng)
        yield made(text, (), False, "coding_foreign", language=language)


def filled(text: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """Replace each {slot} by a random filler, fillers' own slots too."""
    while match := SLOT.search(text):
        filler = rng.choice(slots[match[1]])
        text = text[: match.start()] + filler + text[match.end() :]
    return text


def _cased(text: str, rng: random.Random) -> str:
    """Some writers drop the full stop and the capitals."""
    if rng.random() < 0.25:
        text = text.rstrip(".?!")
    return text.lower() if rng.random() < 0.15 else text


def _kept(items: Sequence[str], held: bool) -> list[str]:
    """The held ninth, or the rest, chosen by the text alone."""
    return [item for item in items if (zlib.crc32(item.encode()) % HELD_SHARE == 0) == held]


@cache
def _table(name: str) -> Table:
    """Read one of the committed tables."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
