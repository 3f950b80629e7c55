"""The files of a run, all in one folder."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from loadtest import figures, series
from loadtest.figures import Taken
from loadtest.report import render
from pipeline.errors import Misconfigured

SUMMARY: Final = "summary.json"
_PARTS: Final = frozenset({"workload", "counts", "blocks", "usage"})
"""What tells a run's summary from other documents of this project."""


def prepare(folder: Path) -> None:
    """Make a run's folder before it begins; raises Misconfigured where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Misconfigured(
            f"{folder} cannot be written ({error.strerror})", remedy="Correct --out"
        ) from error


def write(folder: Path, taken: Taken, summary: Mapping[str, Any]) -> None:
    """Write summary.json, series.csv, latency.hgrm and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = series.rows(taken)
    latencies = figures.latencies(taken)
    (folder / SUMMARY).write_bytes(json(summary))
    (folder / "series.csv").write_text(_csv(rows), encoding="utf-8")
    latencies["end_to_end"].write_hgrm(folder / "latency.hgrm")
    page = render(summary, rows, latencies, series.heat(taken))
    (folder / "report.html").write_text(page, encoding="utf-8")


def read(where: Path) -> dict[str, Any]:
    """The summary of a run, by its folder or file; raises Misconfigured."""
    file = where / SUMMARY if where.is_dir() else where
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise Misconfigured(
            f"there is no summary of a run at {where} ({type(error).__name__})",
            remedy="Give a folder that `sluice loadtest run` wrote",
        ) from None
    if not isinstance(found, dict) or found.get("format") != 1 or not found.keys() >= _PARTS:
        raise Misconfigured(f"{file.name} is not a run's summary", remedy="Give a run's folder")
    return found


def json(document: Any) -> bytes:
    """A document as indented JSON."""
    return orjson.dumps(
        document,
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY,
    )


def _csv(rows: list[series.Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow("" if value is None else f"{value:.6g}" for value in row.values())
    return out.getvalue()
