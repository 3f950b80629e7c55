"""How a benchmark that is run by hand ends: its table, its figures as JSON, its status."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import SluiceError

Found = dict[str, Any]


def answer(
    measuring: Coroutine[Any, Any, Found],
    lines: Callable[[Found], Sequence[str]],
    json: Path | None,
) -> int:
    """Measure, print, and write every figure to `json`; 1 when it could not be measured."""
    try:
        found = asyncio.run(measuring)
    except SluiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(found)))
    if json is not None:
        json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return 0


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr)
