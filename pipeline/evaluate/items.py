"""What is measured on: labelled items, sets of them, and which head is judged."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pipeline.events import UNSAFE, Kind, Message

HAZARDS: Final = tuple(f"S{number}" for number in range(1, 15))


class Head(StrEnum):
    """Which scores are judged: the hazard, the attack, or whichever is higher."""

    HAZARD = "hazard"
    ATTACK = "attack"
    ANY = "any"

    @property
    def labels(self) -> tuple[str, ...]:
        """The score labels whose maximum this head is."""
        return _LABELS[self]

    def within(self, have: Container[str]) -> list[str]:
        """The labels among `have` whose maximum this head is.

        The hazard categories stand for an `unsafe` that is not there.
        """
        found = [label for label in self.labels if label in have]
        if self is not Head.ATTACK and UNSAFE not in have:
            found += [code for code in HAZARDS if code in have]
        return found


_LABELS: Final = {
    Head.HAZARD: (UNSAFE,),
    Head.ATTACK: ("injection", "jailbreak"),
    Head.ANY: (UNSAFE, "injection", "jailbreak"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One labelled text.

    `hazard` and `attack` are None where the source does not say. `categories`
    maps S codes to what is known of them. `prompt` is what a completion
    answers; `tags` are the source's own groups (variant, language, ...).
    """

    id: str
    text: str
    hazard: bool | None = None
    attack: bool | None = None
    kind: Kind = Kind.PROMPT
    prompt: str | None = None
    language: str = ""
    categories: Mapping[str, bool] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def truth(self, head: Head) -> bool | None:
        """Whether the item is positive for a head; None where nobody said.

        For `any`, one known positive is enough; a negative needs both known.
        """
        match head:
            case Head.HAZARD:
                return self.hazard
            case Head.ATTACK:
                return self.attack
            case Head.ANY:
                if self.hazard or self.attack:
                    return True
                return None if self.hazard is None or self.attack is None else False

    def message(self) -> Message:
        """The item as the guards are asked about it."""
        return Message(
            message_id=self.id,
            kind=self.kind,
            text=self.text,
            prompt=self.prompt,
            language=self.language or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A named set as read; `heads` are those measured unless others are asked for.

    `notes` say what a reader of the figures must know (denominators, mapping).
    """

    name: str
    format: str
    items: Sequence[Item]
    heads: tuple[Head, ...]
    notes: tuple[str, ...] = ()


def known(hazard: Sequence[str], *, positive: bool) -> dict[str, bool]:
    """What one label with its codes says about each category.

    A negative is negative for all. A positive names what it is; other harms
    may be there too, so they stay unknown.
    """
    if positive:
        return {code: True for code in hazard if code in HAZARDS}
    return dict.fromkeys(HAZARDS, False)
