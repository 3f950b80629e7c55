"""How a benchmark that is run by hand ends: its table, its figures as JSON, its status."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import orjson

from pipeline.errors import Misconfigured, SluiceError

Found = TypeVar("Found")


def answer(
    measuring: Coroutine[Any, Any, Found],
    lines: Callable[[Found], Iterable[str]],
    json: Path | None,
    plain: Callable[[Found], Any] = lambda found: found,
) -> int:
    """Measure, print, and write every figure to `json`; the exit status, as of `status`.

    `plain` makes values of what was found that JSON knows.
    """

    def told() -> int:
        found = asyncio.run(measuring)
        print("\n".join(lines(found)))
        if json is not None:
            _write(json, plain(found))
        return 0

    return status(told)


def status(work: Callable[[], int]) -> int:
    """What `work` returns; 1 after an error that says what to do, 130 after Ctrl-C."""
    try:
        return work()
    except SluiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _write(path: Path, found: Any) -> None:
    try:
        path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise Misconfigured(
            f"{path} cannot be written ({error.strerror})", remedy="The figures are printed above"
        ) from error


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr)
