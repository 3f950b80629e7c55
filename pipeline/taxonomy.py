"""The categories that scores, thresholds and verdicts are named by.

S1 to S14 are the MLCommons hazards in the numbering of Llama Guard 3 and 4
(their model cards). Llama Guard 2 numbers differently, so a bare code is
ambiguous: every verdict carries the taxonomy id beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

SLUICE_1: Final = "sluice-1"

CATEGORIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "S1": "Violent Crimes",
        "S2": "Non-Violent Crimes",
        "S3": "Sex-Related Crimes",
        "S4": "Child Sexual Exploitation",
        "S5": "Defamation",
        "S6": "Specialized Advice",
        "S7": "Privacy",
        "S8": "Intellectual Property",
        "S9": "Indiscriminate Weapons",
        "S10": "Hate",
        "S11": "Suicide & Self-Harm",
        "S12": "Sexual Content",
        "S13": "Elections",
        "S14": "Code Interpreter Abuse",
        "unsafe": "Any hazard",
        "injection": "Prompt Injection",
        "jailbreak": "Jailbreak",
    }
)
"""Category code to the name people read, for taxonomy `sluice-1`."""


def name_of(code: str) -> str:
    """The readable name of a category, or the code itself if it is unknown."""
    return CATEGORIES.get(code, code)


def spelt(codes: Iterable[str]) -> frozenset[str]:
    """Categories as the taxonomy spells them, however typed; unknown ones stay as they are."""
    return frozenset(_SPELT.get(code.casefold(), code) for code in codes)


_SPELT: Final = {code.casefold(): code for code in CATEGORIES}
