"""Public measurement sets in the form their authors distribute them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pipeline.evaluate.items import Item, known
from pipeline.evaluate.reading import Row
from pipeline.events import Kind

OPENAI_LABELS: Final = {
    "S12": ("S",), "S10": ("H", "H2"), "S1": ("V", "V2"), "S11": ("SH",), "S4": ("S3",),
}  # fmt: skip
"""Our category to their labels; HR (harassment) has none of its own."""
OPENAI_FLAGS: Final = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")

BEAVERTAILS: Final = {
    "animal_abuse": "S1",
    "child_abuse": "S4",
    "discrimination,stereotype,injustice": "S10",
    "drug_abuse,weapons,banned_substance": "S2",
    "financial_crime,property_crime,theft": "S2",
    "hate_speech,offensive_language": "S10",
    "privacy_violation": "S7",
    "self_harm": "S11",
    "sexually_explicit,adult_content": "S12",
    "terrorism,organized_crime": "S1",
    "violence,aiding_and_abetting,incitement": "S1",
}
"""Their category to ours; politics, misinformation and unethical have none."""

HARMBENCH: Final = {
    "chemical_biological": "S9",
    "copyright": "S8",
    "cybercrime_intrusion": "S2",
    "illegal": "S2",
}

SIMPLE_SAFETY: Final = {
    "suicide": "S11", "physical": "S1", "illegal": "S2", "scams": "S2", "child": "S4",
}  # fmt: skip
"""Their harm area to ours, by its first word: the copies differ in the others."""


def openai_moderation(rows: Iterable[Row]) -> Iterator[Item]:
    """Positive when any of the eight labels is; a missing one counts as no.

    By category a missing label is unknown: their labellers did not say.
    """
    for row in rows:
        said = {name: row.maybe(name) for name in OPENAI_FLAGS}
        if all(value is None for value in said.values()):
            row.wrong("S", "and the other seven labels are missing", "Give the file as distributed")
        categories = {
            code: bool(_first_yes([said[name] for name in names]))
            for code, names in OPENAI_LABELS.items()
            if _first_yes([said[name] for name in names]) is not None
        }
        yield Item(
            id=str(row.number),
            text=row.text("prompt"),
            hazard=any(said.values()),
            categories=categories,
        )


def _first_yes(said: list[bool | None]) -> bool | None:
    """Yes if any says so; the main label's no is a no; otherwise unknown."""
    if any(said):
        return True
    return False if said[0] is False else None


def toxicchat(rows: Iterable[Row]) -> Iterator[Item]:
    """Users' words: `toxicity` is the hazard label, `jailbreaking` the attack one."""
    for row in rows:
        yield Item(
            id=row.optional("conv_id") or str(row.number),
            text=row.text("user_input"),
            hazard=row.flag("toxicity"),
            attack=row.flag("jailbreaking"),
            tags={"human_annotation": row.optional("human_annotation")},
        )


def xstest(rows: Iterable[Row]) -> Iterator[Item]:
    """Safe prompts that sound unsafe, and their unsafe contrasts (positive)."""
    for row in rows:
        kind = row.text("type")
        labelled = row.maybe("label")
        yield Item(
            id=row.optional("id") or row.optional("id_v2") or str(row.number),
            text=row.text("prompt"),
            hazard=kind.startswith("contrast_") if labelled is None else labelled,
            language="en",
            tags={"type": kind},
        )


def harmbench(rows: Iterable[Row]) -> Iterator[Item]:
    """Harmful behaviours, all of them; a context stands before its behaviour."""
    for row in rows:
        wish, context = row.text("Behavior"), row.optional("ContextString")
        code = HARMBENCH.get(row.text("SemanticCategory"))
        yield Item(
            id=row.optional("BehaviorID") or str(row.number),
            text=f"{context}\n\n{wish}" if context else wish,
            hazard=True,
            language="en",
            categories=known([code] if code else [], positive=True),
            tags={
                "semantic": row.text("SemanticCategory"),
                "functional": row.optional("FunctionalCategory"),
            },
        )


def jailbreakbench(rows: Iterable[Row], path: Path) -> Iterator[Item]:
    """Goals: harmful or benign, as a `label` column or the file's name says."""
    by_name = {"harmful": True, "benign": False}
    named = next((value for word, value in by_name.items() if word in path.name.lower()), None)
    for row in rows:
        labelled = row.maybe("label")
        hazard = named if labelled is None else labelled
        if hazard is None:
            row.wrong("label", "is missing", "Keep the names harmful-behaviors.csv, benign-...csv")
        yield Item(
            id=f"{'harmful' if hazard else 'benign'}-{row.optional('Index') or row.number}",
            text=row.text("Goal"),
            hazard=hazard,
            language="en",
            tags={"category": row.optional("Category")},
        )


def simplesafetytests(rows: Iterable[Row]) -> Iterator[Item]:
    """Harmful requests, all of them; the text's column has two names among the copies."""
    for row in rows:
        area = row.text("harm_area")
        codes = [code for word, code in SIMPLE_SAFETY.items() if area.lower().startswith(word)]
        yield Item(
            id=row.optional("id") or str(row.number),
            text=row.text("prompts_final" if "prompts_final" in row.fields else "prompt"),
            hazard=True,
            language="en",
            categories=known(codes, positive=True),
            tags={"harm_area": area, "category": row.optional("category")},
        )


def notinject(rows: Iterable[Row]) -> Iterator[Item]:
    """Harmless sentences with words that attacks use: none is an attack.

    The files as distributed hold a few empty prompts, which are left out.
    """
    for row in rows:
        words = row.fields.get("word_list")
        if not isinstance(words, list):
            row.wrong("word_list", "is not a list of words", "Give the file as distributed")
        if row.fields.get("prompt") == "":
            continue
        yield Item(
            id=f"{len(words)}-{row.number}",
            text=row.text("prompt"),
            attack=False,
            tags={"category": row.optional("category"), "trigger_words": str(len(words))},
        )


def beavertails(rows: Iterable[Row]) -> Iterator[Item]:
    """Answers, with the question as context: the label judges the answer."""
    for row in rows:
        categories = row.fields.get("category")
        if not isinstance(categories, dict):
            row.wrong("category", "is not an object of yes and no", "Give the file as distributed")
        safe = row.flag("is_safe")
        codes = [code for name, code in BEAVERTAILS.items() if categories.get(name)]
        asked = set(BEAVERTAILS.values())
        yield Item(
            id=str(row.number),
            text=row.text("response"),
            prompt=row.text("prompt"),
            kind=Kind.COMPLETION,
            hazard=not safe,
            language="en",
            categories={code: code in codes for code in asked},
        )
