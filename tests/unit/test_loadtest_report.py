"""The artefacts: one self-contained page, and figures that other tools read."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from xml.dom import minidom

import pytest

from loadtest import artefacts, table
from loadtest.figures import Taken
from pipeline.errors import Misconfigured

from .loadtest_runs import Sent, steady, summary, taken


@pytest.fixture(scope="module")
def run() -> Taken:
    """A run of 400 messages, 16 of them malformed."""
    sent = steady(400)
    sent[::25] = [Sent(due_ms=each.due_ms, dead=True) for each in sent[::25]]
    return taken(sent, thresholds=["lost == 0", "p95_ms <= 1"])


@pytest.fixture(scope="module")
def folder(run: Taken, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its artefacts."""
    made = tmp_path_factory.mktemp("run")
    artefacts.write(made, run, summary(run))
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    """The report."""
    return (folder / "report.html").read_text()


def test_the_report_needs_nothing_from_elsewhere(page: str) -> None:
    """No script, no link, no image, no font, no import: it reads the same in ten years."""
    assert not re.search(r"<script|<link|<img|@import|@font-face|src=|url\(http", page)
    assert not re.search(r'href="(?!#)', page)


def test_charts_take_their_colours_from_the_page(page: str) -> None:
    """No colour of their own would survive a dark scheme or a print."""
    for svg in _drawings(page):
        assert "var(--a)" in svg or "var(--h" in svg
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_charts_are_well_formed_and_have_a_title(page: str) -> None:
    """Screen readers say what a drawing shows; ids are unique on the page."""
    roots = [minidom.parseString(svg).documentElement for svg in _drawings(page)]  # noqa: S318
    titles = [root.getElementsByTagName("title")[0] for root in roots if root is not None]
    assert [title.firstChild.data for title in titles] == [
        "Throughput over time", "Lag over time", "End to end, by percentile",
        "Where the time goes", "Latency over time", "Processor over time", "Triton over time",
    ]  # fmt: skip
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_bar_of_stages_says_what_it_is_a_mean_of(page: str, run: Taken) -> None:
    """Malformed messages have no stages, so theirs is no part of the sum."""
    stages = summary(run)["stages_ms"]
    whole = table.milliseconds(sum(stages.values()))
    assert f"Means of scored messages after the warm-up; end to end they took {whole} ms." in page


def test_a_run_without_scored_messages_has_no_bar_of_stages(tmp_path: Path) -> None:
    """An empty one would say that they took no time."""
    dead = taken([Sent(due_ms=n, dead=True) for n in range(9)])
    artefacts.write(tmp_path, dead, summary(dead))
    assert "Where the time goes" not in (tmp_path / "report.html").read_text()


def test_the_result_stands_first(page: str) -> None:
    """State and thresholds before any latency."""
    assert page.index("BREACHED") < page.index("Latency, milliseconds")
    assert "&lt;= 1" in page


def test_names_from_the_stack_are_escaped(page: str) -> None:
    """A policy may be called anything."""
    assert "&lt;b&gt;default" in page
    assert "<b>default" not in page


def test_the_summary_is_read_back(folder: Path, run: Taken) -> None:
    """By folder or by file; its figures are those of the run."""
    found = artefacts.read(folder)
    assert found == artefacts.read(folder / "summary.json") == json.loads(json.dumps(summary(run)))
    assert found["counts"]["dead_lettered"] == found["counts"]["malformed"] == 16


def test_the_series_is_plain_csv(folder: Path) -> None:
    """A row a second under named columns; what is not known is empty."""
    with (folder / "series.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["t_s"] for row in rows][:2] == ["0", "1"]
    assert sum(int(row["sent"]) for row in rows) == 400
    assert {"p95_ms", "backlog", "lag", "cpu_worker-1", "triton_queue_ms"} <= rows[0].keys()


def test_the_percentiles_are_in_the_plotters_form(folder: Path) -> None:
    """What HdrHistogram's plotter takes as it is."""
    lines = (folder / "latency.hgrm").read_text().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert any(line.startswith("#[Mean") for line in lines)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}'])
def test_what_is_no_summary_is_refused(tmp_path: Path, text: str) -> None:
    """The error says what to give instead."""
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(Misconfigured, match="run"):
        artefacts.read(tmp_path)


def test_the_table_shows_both_latencies_and_every_stage(run: Taken) -> None:
    """The naive figure beside the true one; parts that Triton reports under the guard."""
    labels = [row[0].strip() for row in table.latency_rows(summary(run))]
    assert labels[:2] == ["end to end, from the intended send time",
                          "end to end, naive: from the actual send"]  # fmt: skip
    assert labels.index("Triton compute") > labels.index("3 judge: tokenise, call the guard, score")
    assert all(len(row) == 1 + len(table.COLUMNS) for row in table.latency_rows(summary(run)))


def _drawings(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
