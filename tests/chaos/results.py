"""Results of a run on disk, so that it may be done in pieces."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from pipeline.settings import home
from tests.chaos.catalogue import Fault
from tests.chaos.harness import Result


def folder() -> Path:
    """Where results lie."""
    path = home() / "chaos"
    path.mkdir(exist_ok=True)
    return path


def keep(result: Result) -> None:
    """Remember a result; it replaces an earlier one of the same fault."""
    _write(result.fault, asdict(result))


def leave_out(fault: Fault, why: str) -> None:
    """Remember that a fault could not be made here."""
    _write(fault.name, {"fault": fault.name, "left_out": why})


def read() -> dict[str, dict[str, Any]]:
    """Every result, by fault."""
    return {path.stem: orjson.loads(path.read_bytes()) for path in folder().glob("*.json")}


def _write(name: str, content: dict[str, Any]) -> None:
    (folder() / f"{name}.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
