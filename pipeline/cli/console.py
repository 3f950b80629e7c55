"""Where output goes: data on stdout, everything for people beside it on stderr."""

from __future__ import annotations

import sys
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from pipeline.events import Action

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

STYLE = {
    Action.ALLOW: "green",
    Action.FLAG: "yellow",
    Action.REVIEW: "dark_orange",
    Action.BLOCK: "bold red",
    Action.UNKNOWN: "bold red",
}
"""How an action looks; the word itself is always shown beside the colour."""


def print_json(document: Any) -> None:
    """One JSON document on its own line of stdout."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def error(message: str) -> None:
    """An error for people, on stderr; never wrapped in a traceback."""
    err.print(Text.assemble(("error:", "bold red"), " ", message))


def note(message: str) -> None:
    """A remark for people, on stderr."""
    err.print(Text(message))
