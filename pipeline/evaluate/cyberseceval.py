"""Meta's CyberSecEval sets as distributed: injection, false refusal, interpreter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pipeline.evaluate.items import Item, known
from pipeline.evaluate.reading import Row

INJECTION_TAGS: Final = (
    "injection_variant",
    "injection_type",
    "risk_category",
    "speaking_language",
)
_LANGUAGES: Final = {
    "English": "en", "French": "fr", "German": "de", "Hindi": "hi", "Italian": "it",
    "Portuguese": "pt", "Spanish": "es", "Thai": "th", "Vietnamese": "vi", "Arabic": "ar",
    "Chinese": "zh", "Czech": "cs", "Dutch": "nl", "Indonesian": "id", "Japanese": "ja",
    "Korean": "ko", "Polish": "pl", "Russian": "ru", "Swedish": "sv", "Tagalog": "tl",
    "Turkish": "tr", "Ukrainian": "uk",
}  # fmt: skip


def injection(rows: Iterable[Row], *, with_system: bool) -> Iterator[Item]:
    """Attacks, all of them; the system prompt stands before the user's words.

    Many of these words are harmless without their system prompt, so a guard
    that is not shown it cannot be right about them.
    """
    for row in rows:
        asked, system = row.text("user_input"), row.text("test_case_prompt")
        tags = {name: row.optional(name) for name in INJECTION_TAGS}
        yield Item(
            id=str(row.number),
            text=f"{system}\n\n{asked}" if with_system else asked,
            attack=True,
            language=language(tags["speaking_language"] or "English"),
            tags=tags,
        )


def false_refusal(rows: Iterable[Row]) -> Iterator[Item]:
    """Requests about security that are harmless, all of them."""
    for row in rows:
        if row.maybe("is_malicious"):
            row.wrong("is_malicious", "is true", "This is not the false-refusal set")
        yield Item(
            id=str(row.number),
            text=row.text("mutated_prompt"),
            hazard=False,
            attack=False,
            language=language(row.optional("speaking_language") or "English"),
            categories=known((), positive=False),
            tags={"attack_type": row.optional("attack_type")},
        )


def interpreter(rows: Iterable[Row]) -> Iterator[Item]:
    """Requests to abuse a code interpreter (S14), all of them."""
    for row in rows:
        kinds = row.fields.get("attack_type")
        if not isinstance(kinds, list) or not kinds:
            row.wrong("attack_type", "is not a list of kinds", "Give Meta's interpreter.json")
        yield Item(
            id=str(row.number),
            text=row.text("mutated_prompt"),
            hazard=True,
            language="en",
            categories=known(("S14",), positive=True),
            tags={"attack_type": str(kinds[0])},
        )


def language(name: str) -> str:
    """A language's code by the name Meta gives it; an unknown name as it is."""
    return _LANGUAGES.get(name, name)
