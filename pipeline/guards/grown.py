"""Requests grown from tables of voices, tasks and slots, as many as wanted.

Each epoch draws other combinations. One task in nine is never trained on: it
measures whether the guard learnt the difference or the phrases.
"""

from __future__ import annotations

import math
import random
import re
import tomllib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline.guards.contrast import made
from pipeline.guards.data import PLACE, Example

HELD_SHARE = 9
ROWS = {
    "coding": 2000,
    "malware": 700,
    "mention": 6400,
    "attack": 5400,
    "mention_foreign": 2400,
    "attack_foreign": 2200,
    "harmful": 9000,
    "harmless": 8800,
    "coding_foreign": 3800,
    "engineering": 6000,
    "sabotage": 2000,
    "security": 5600,
    "security_harmful": 3200,
    "twin": 7000,
    "twin_harmful": 5600,
    "chat": 5000,
    "chat_harmful": 4600,
    "everyday": 4000,
    "statement": 6800,
    "statement_harmful": 6800,
    "passage": 4600,
    "passage_harmful": 4400,
    "wrapped": 800,
    "wrapped_harmless": 800,
}
LONGEST_REQUIREMENTS = 7
# A long text is not an attack, in other languages either: so many say several things.
SEVERAL_SHARE = 0.45
# What is said of a hazard where a harmless request stands in a jailbreak.
UNSURE = 0.3
SPOKEN_ATTACKS = {"injection": ("PI",), "jailbreak": ("JB",)}
SLOT = re.compile(r"\{(\w+)\}")
Table = dict[str, Any]
Maker = Callable[[random.Random, bool], Iterator[Example]]


def grown(seed: str, *, held: bool = False, share: float = 1.0) -> list[Example]:
    """Return `share` of `ROWS` examples; `held` takes only the held tasks."""
    rng = random.Random(f"{seed}/grown/{held}")
    makers: dict[str, Maker] = {
        "coding": _coding,
        "malware": _malware,
        "mention": _mentions,
        "attack": _attacks,
        "mention_foreign": partial(_spoken, kinds={"safe": ()}, kind="mention_foreign"),
        "attack_foreign": partial(_spoken, kinds=SPOKEN_ATTACKS, kind="attack_foreign"),
        "harmful": _harmful,
        "harmless": _harmless,
        "coding_foreign": _foreign,
        "engineering": partial(_harmless, name="engineering"),
        "sabotage": partial(_harmful, name="engineering", kind="sabotage"),
        "security": partial(_harmless, name="security"),
        "security_harmful": partial(_harmful, name="security", kind="security_harmful"),
        "twin": partial(_harmless, name="twins", kind="twin"),
        "twin_harmful": partial(_harmful, name="twins", kind="twin_harmful"),
        "chat": partial(_harmless, name="chat"),
        "chat_harmful": partial(_harmful, name="chat", kind="chat_harmful"),
        "everyday": partial(_harmless, name="everyday"),
        "statement": partial(_harmless, name="statements", kind="statement"),
        "statement_harmful": partial(_harmful, name="statements", kind="statement_harmful"),
        "passage": partial(_harmless, name="passages", kind="passage"),
        "passage_harmful": partial(_harmful, name="passages", kind="passage_harmful"),
        "wrapped": partial(_wrapped, side="harmful"),
        "wrapped_harmless": partial(_wrapped, side="harmless"),
    }
    rows: list[Example] = []
    for kind, maker in makers.items():
        endless = maker(rng, held)
        rows += [next(endless) for _ in range(round(ROWS[kind] * share))]
    return rows


def _coding(rng: random.Random, held: bool) -> Iterator[Example]:
    """Programming requests without a victim, from one line to a page."""
    table = read_table("coding.toml")
    tasks = _kept([task for group in table["benign"].values() for task in group], held)
    while True:
        yield made(_request(table, tasks, rng), (), False, "coding")


def _malware(rng: random.Random, held: bool) -> Iterator[Example]:
    """The same voices around a task that has a victim."""
    table = read_table("coding.toml")
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
    table = read_table("mentions.toml")
    groups = [_kept(group, held) for group in table["safe"].values()]
    sizes = [math.sqrt(len(group)) for group in groups]
    while True:
        text = rng.choice(rng.choices(groups, sizes)[0])
        yield made(_cased(filled(text, table["slots"], rng), rng), (), False, "mention")


def _attacks(rng: random.Random, held: bool) -> Iterator[Example]:
    """Attacks with the same words; hazards stay unsaid."""
    table = read_table("mentions.toml")
    choices = [
        (code, text)
        for name, code in (("injection", "PI"), ("jailbreak", "JB"))
        for text in _kept(table["attack"][name], held)
    ]
    while True:
        code, text = rng.choice(choices)
        shown = _cased(filled(text, table["slots"], rng), rng)
        yield made(shown, (code,), True, "attack", head="a")


def _harmful(
    rng: random.Random, held: bool, *, name: str = "hazards", kind: str = "harmful"
) -> Iterator[Example]:
    """Harmful requests of one table; OTHER is a harm outside S1-S14."""
    table = read_table(f"{name}.toml")
    groups = {
        code: kept for code, group in table["harmful"].items() if (kept := _kept(group, held))
    }
    # A category of fifty phrases is drawn oftener than one of nine, but not six times.
    sizes = [math.sqrt(len(group)) for group in groups.values()]
    while True:
        (code,) = rng.choices(list(groups), sizes)
        codes = () if code == "OTHER" else (code,)
        yield made(_said(table, "harmful", groups[code], rng), codes, True, kind)


def _harmless(
    rng: random.Random, held: bool, *, name: str = "hazards", kind: str = ""
) -> Iterator[Example]:
    """The benign twins of `_harmful` in the same table."""
    table = read_table(f"{name}.toml")
    groups = [kept for group in table["harmless"].values() if (kept := _kept(group, held))]
    sizes = [math.sqrt(len(group)) for group in groups]
    kind = kind or ("harmless" if name == "hazards" else name)
    while True:
        (group,) = rng.choices(groups, sizes)
        yield made(_said(table, "harmless", group, rng), (), False, kind)


def _wrapped(rng: random.Random, held: bool, *, side: str) -> Iterator[Example]:
    """A jailbreak around a request: both are said of it, of a harmless one less loudly.

    A wrapper that promises to break every rule is no harm by itself, and not
    harmless beyond doubt.
    """
    table, attacks = read_table("hazards.toml"), read_table("mentions.toml")
    wrappers = _kept(attacks["attack"]["jailbreak"], held)
    groups = {code: _kept(group, held) for code, group in table[side].items()}
    codes = [code for code, group in groups.items() if group]
    harmful = side == "harmful"
    while True:
        code = rng.choice(codes)
        parts = [
            filled(rng.choice(wrappers), attacks["slots"], rng),
            _said(table, side, groups[code], rng),
        ]
        rng.shuffle(parts)
        text = rng.choice((" ", "\n", "\n\n")).join(parts)
        if harmful:
            yield made(text, (code, "JB"), True, "wrapped")
        else:
            yield _softer(made(text, ("JB",), False, "wrapped_harmless"))


def _softer(example: Example) -> Example:
    """The same with the hazards at a fraction of their weight."""
    attacks = (PLACE["injection"], PLACE["jailbreak"])
    weights = (
        weight if place in attacks else weight * UNSURE
        for place, weight in enumerate(example.weights)
    )
    return replace(example, weights=tuple(weights))


def _said(table: Table, side: str, phrases: Sequence[str], rng: random.Random) -> str:
    """One phrase in one voice that fits the side; both may hold slots."""
    voices = table.get("voices", {"both": ["{}"]})
    phrase = rng.choice(phrases)
    # A whole sentence speaks for itself.
    whole = not phrase[0].islower() and phrase[0] != "{"
    voice = "{}" if whole else rng.choice([*voices["both"], *voices.get(side, ())])
    return _cased(filled(voice.replace("{}", phrase), table["slots"], rng), rng)


def _spoken(
    rng: random.Random, held: bool, *, kinds: Mapping[str, Sequence[str]], kind: str
) -> Iterator[Example]:
    """Attacks in other languages, whose hazards stay unsaid, or their harmless look-alikes."""
    table = read_table("attack_languages.toml")
    spoken = {name: entry for name, entry in table.items() if name != "slots"}
    choices = [
        (language, codes, text)
        for language, entry in spoken.items()
        for name, codes in kinds.items()
        for text in _kept(entry[name], held)
    ]
    while True:
        language, codes, text = rng.choice(choices)
        company = _kept(spoken[language]["safe"], held) or [text]
        parts = _among(text, company, rng)
        shown = filled("\n".join(parts), table["slots"], rng)
        head = "a" if codes else "b"
        yield made(shown, codes, bool(codes), kind, head=head, language=language)


def _among(text: str, others: Sequence[str], rng: random.Random) -> list[str]:
    """The text by itself, or somewhere among up to three others."""
    parts = [text]
    while len(parts) < 4 and rng.random() < SEVERAL_SHARE:
        parts.insert(rng.randint(0, len(parts)), rng.choice(others))
    return parts


def _foreign(rng: random.Random, held: bool) -> Iterator[Example]:
    """Programming requests in other languages."""
    table, programming = read_table("coding_languages.toml"), read_table("coding.toml")["languages"]
    known = {name: _kept(entry["tasks"], held) for name, entry in table.items()}
    languages = sorted(name for name, tasks in known.items() if tasks)
    while True:
        language = rng.choice(languages)
        voices = table[language]["voices"]
        parts = _among(rng.choice(voices), voices, rng)
        text = filled(" ".join(parts), {"t": known[language], "p": programming}, rng)
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
def read_table(name: str) -> Table:
    """Read one of the committed tables."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
