"""A chat guard's template: the exact text around the message that it judges.

The file is JSON, so that no editor's habit with line ends can change a byte of
what the model reads. `{{text}}` stands for the judged message and
`{{prompt}}` for the prompt that a completion answers; nothing else is special.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import Misconfigured

TEXT: Final = "{{text}}"
PROMPT: Final = "{{prompt}}"
_SLOTS: Final = re.compile(r"(\{\{(?:text|prompt)\}\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """Texts with slots: of a prompt, of a completion with its prompt, and of one without.

    `continuation` is the answer forced on the model, up to the token whose
    successor tells the category.
    """

    prompt: str
    completion: str
    completion_alone: str
    continuation: str

    @classmethod
    def read(cls, path: Path) -> ChatTemplate:
        """The template in a file; raises Misconfigured naming what is wrong."""
        try:
            template = cls(**json.loads(path.read_text(encoding="utf-8")))
            problem = template._problem()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            problem = type(error).__name__
        if problem:
            raise Misconfigured(
                f"template {path} cannot be used: {problem}", remedy="Export the guard again"
            )
        return template

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")

    def render(self, text: str, prompt: str | None, *, completion: bool) -> str:
        """What the model reads for a message; slots typed by a user stay as they are."""
        return fill(self.shape(prompt, completion=completion), {TEXT: text, PROMPT: prompt or ""})

    def shape(self, prompt: str | None, *, completion: bool) -> str:
        """The text with slots that fits a message, with the forced answer."""
        if not completion:
            return self.prompt + self.continuation
        return (self.completion if prompt else self.completion_alone) + self.continuation

    def _problem(self) -> str:
        for name, value in asdict(self).items():
            if not isinstance(value, str):
                return f"{name!r} must be text"
        for name, wanted in (("prompt", 0), ("completion", 1), ("completion_alone", 0)):
            text = getattr(self, name)
            if text.count(TEXT) != 1 or text.count(PROMPT) != wanted:
                return f"{name!r} must hold {TEXT} once and {PROMPT} {wanted} times"
        return ""


def fill(shape: str, values: Mapping[str, str]) -> str:
    """A text with each slot replaced once; what is put in is not searched again."""
    return "".join(values.get(piece, piece) for piece in _SLOTS.split(shape))
