"""Examples written for this project, grown from two tables of phrases.

`contrast.toml` pairs harmful and harmless phrases that share words and voice;
`languages.toml` does the same in twenty-six other languages.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.guards.data import Example, label

VOICES_PER_PHRASE = 4
FOREIGN_VOICES_PER_PHRASE = 3
# They are few, and the public sets' injections are long.
ATTACK_REPEATS = 5
Table = dict[str, Any]


def contrastive(seed: int) -> list[Example]:
    """Return all own examples, the same for the same seed."""
    rng = random.Random(f"{seed}/contrast")
    table, languages = _table("contrast.toml"), _table("languages.toml")
    return [
        *_requests(table, rng),
        *_completions(table, rng),
        *_statements(table),
        *_attacks(table),
        *_foreign(languages, rng),
    ]


def harmless_questions() -> list[str]:
    """Harmless requests, used as the prompt that a completion answers."""
    table = _table("contrast.toml")
    phrases = [phrase for group in table["harmless"].values() for phrase in group]
    return [f"How do I {phrase}?" for phrase in phrases]


def plain_texts() -> list[str]:
    """Harmless statements, used as padding."""
    return list(_table("contrast.toml")["plain"]["texts"])


def _requests(table: Table, rng: random.Random) -> Iterator[Example]:
    """Each phrase in some voices; the voices are shared by both sides."""
    shared = table["voices"]["any"]
    for side in ("harmful", "harmless"):
        voices = [*shared, *table["voices"][side]]
        for code, phrases in table[side].items():
            for phrase in phrases:
                for voice in rng.sample(voices, VOICES_PER_PHRASE):
                    codes = (code,) if side == "harmful" else ()
                    yield made(voice.format(phrase), codes, side == "harmful", side)


def _completions(table: Table, rng: random.Random) -> Iterator[Example]:
    """Compliance is unsafe, refusal is safe, whatever was asked."""
    voices = table["voices"]
    for code, phrases in table["harmful"].items():
        for phrase in phrases:
            asked = rng.choice(voices["any"]).format(phrase)
            comply, refuse = rng.choice(voices["compliances"]), rng.choice(voices["refusals"])
            yield made(comply.format(phrase), (code,), True, "compliance", context=asked)
            yield made(refuse.format(phrase), (), False, "refusal", context=asked)
    for phrases in table["harmless"].values():
        for phrase in phrases:
            asked = rng.choice(voices["any"]).format(phrase)
            answer = rng.choice(voices["answers"] + voices["refusals"])
            yield made(answer.format(phrase), (), False, "answer", context=asked)


def _statements(table: Table) -> Iterator[Example]:
    """Harmful statements by category, and plain ones."""
    for code, texts in table["statements"].items():
        codes = () if code == "OTHER" else (code,)
        for text in texts:
            yield made(text, codes, True, "statement")
    for text in table["plain"]["texts"]:
        yield made(text, (), False, "plain")


def _attacks(table: Table) -> Iterator[Example]:
    """Injections and jailbreaks (attack head only) and their twins."""
    for _ in range(ATTACK_REPEATS):
        for kind, code in (("injection", "PI"), ("jailbreak", "JB")):
            for text in table[kind]["texts"]:
                yield made(text, (code,), True, kind, head="a")
        for text in table["attack_twins"]["texts"]:
            yield made(text, (), False, "attack_twin")


def _foreign(table: Table, rng: random.Random) -> Iterator[Example]:
    """Harmful and harmless requests in other languages."""
    for language, entry in table.items():
        if language == "codes":
            continue
        voices = entry["voices"]
        for phrase in entry["harmless"]:
            for voice in rng.sample(voices, min(FOREIGN_VOICES_PER_PHRASE, len(voices))):
                yield made(voice.format(phrase), (), False, "foreign", language=language)
        for phrase, code in zip(entry["harmful"], table["codes"], strict=True):
            for voice in voices:
                yield made(voice.format(phrase), (code,), True, "foreign", language=language)


def made(
    text: str,
    codes: Sequence[str],
    positive: bool,
    kind: str,
    *,
    head: str = "b",
    context: str = "",
    language: str = "en",
) -> Example:
    """Label one own text; the source says which list it came from."""
    targets, weights = label(positive=positive, codes=codes, head=head, negatives="all")
    return Example(
        text=text,
        context=context,
        targets=targets,
        weights=weights,
        source=f"own:{kind}",
        language=language,
    )


def _table(name: str) -> Table:
    """Read one of the committed tables."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
