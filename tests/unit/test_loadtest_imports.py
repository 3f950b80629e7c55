"""What the load test may lean on: the wire, not the worker it measures."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import loadtest

FOLDER = Path(loadtest.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))

ALLOWED = {
    "codec", "events", "headers", "settings", "envelope", "errors", "ports", "ranges",
    "resources", "samples", "adapters.kafka",
}  # fmt: skip
"""Modules of `pipeline`: records and their encoding, settings, reader and publisher."""

PURE = {
    "schedule", "thresholds", "stamp", "mix", "rows", "scrape", "measure", "processes", "figures",
    "series", "summary", "table", "charts", "knee", "compare", "costs", "plan",
}  # fmt: skip
"""They reach for no clock, no file, no network and no process."""

OUTSIDE = {
    "os", "time", "socket", "asyncio", "subprocess", "pathlib", "urllib", "psutil", "tempfile",
}  # fmt: skip


def imported(module: str) -> Iterator[str]:
    """Every module that a module names in an import, wherever it stands."""
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "pipeline":
            yield from (f"pipeline.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("module", MODULES)
def test_only_the_wire_is_imported_from_the_pipeline(module: str) -> None:
    """What is measured is reached through Kafka, never through its own code."""
    used = {name.removeprefix("pipeline.") for name in imported(module) if "pipeline" in name}
    assert used <= ALLOWED


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_judges_and_reports_is_pure(module: str) -> None:
    """IO stays at the rim, so figures can be made again from what was measured."""
    names = set(imported(module))
    assert not {name.partition(".")[0] for name in names} & OUTSIDE
    impure = {name for name in MODULES if name not in PURE} - {"histogram", "workload"}
    assert not {name.partition("loadtest.")[2] for name in names} & impure


@pytest.mark.parametrize("name", ["loadtest", "loadtest_target", "loadtest_tables"])
def test_the_command_line_loads_without_the_extra(name: str) -> None:
    """`sluice` must start where load-test libraries are not installed."""
    tree = ast.parse((FOLDER.parent / "pipeline" / "cli" / f"{name}.py").read_text())
    top = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    assert not any((getattr(node, "module", "") or "").startswith("loadtest") for node in top)
