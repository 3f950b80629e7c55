"""Specification of `sluice evaluate` as a person or a pipeline meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data" / "evaluate"
XSTEST = f"xstest:{DATA / 'xstest.csv'}"
KEY = "key-that-must-not-be-shown"


def sluice(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder of its own."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "evaluate", *arguments],
        cwd=folder, env=given | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def scores(tmp_path: Path) -> str:
    """Scores of two filters for the XSTest sample: one right, one wrong."""
    path = tmp_path / "scores.jsonl"
    path.write_text(
        '{"guard": "good", "id": "1", "score": 0.1}\n{"guard": "good", "id": "2", "score": 0.9}\n'
        '{"guard": "bad", "id": "1", "score": 0.8}\n{"guard": "bad", "id": "2", "score": 0.2}\n'
    )
    return str(path)


def test_two_filters_end_in_a_table_and_a_held_gate(tmp_path: Path, scores: str) -> None:
    """The table names both, the score judged and the point; exit code 0."""
    done = sluice(tmp_path, "--data", XSTEST, "--recorded", scores, "--fail-under", "xstest.f1=1")
    assert done.returncode == 0, done.stderr
    for told in ("good against bad", "optimal F1", "xstest: score unsafe", "2 of 2 items"):
        assert told in done.stdout
    assert "neighbour" not in done.stdout


def test_a_breached_gate_ends_with_99(tmp_path: Path, scores: str) -> None:
    """The figure and its bound are told on stderr."""
    bound = "bad/xstest.fpr<=0.08"
    done = sluice(tmp_path, "--data", XSTEST, "--recorded", scores, "--fail-under", bound)
    assert done.returncode == 99
    assert "gate breached: xstest.fpr <= 0.08: bad has 1.0000" in done.stderr


def test_out_holds_summary_scores_and_page(tmp_path: Path, scores: str) -> None:
    """The folder's scores give the same figures when they are evaluated again."""
    pytest.importorskip("matplotlib")
    first = sluice(tmp_path, "--data", XSTEST, "--recorded", scores, "--out", "out", "--json")
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    again = sluice(tmp_path, "--data", XSTEST, "--recorded", "out/scores.jsonl", "--json")
    figures = [
        [one["figures"] for one in json.loads(text)["results"]]
        for text in (first.stdout, again.stdout, (tmp_path / "out/summary.json").read_text())
    ]
    assert figures[0] == figures[1] == figures[2]


def test_a_wrong_file_ends_with_2_and_one_line(tmp_path: Path, scores: str) -> None:
    """File, line and field, and no traceback."""
    (tmp_path / "x.csv").write_text("id,prompt,type,label,focus,note\n1,secret,t,maybe,f,\n")
    done = sluice(tmp_path, "--data", "xstest:x.csv", "--recorded", scores)
    assert done.returncode == 2
    assert done.stderr.startswith("error: x.csv:2: field 'label' is neither a yes nor a no. ")
    assert done.stderr.count("\n") == 1


def test_a_filter_without_the_scores_of_a_set_is_told(tmp_path: Path, scores: str) -> None:
    """It has no row in the table, and alone nothing is measured: exit code 2."""
    (tmp_path / "attacks.jsonl").write_text('{"id": "1", "scores": {"injection": 0.2}}\n')
    both = sluice(tmp_path, "--data", XSTEST, "--recorded", "attacks.jsonl", "--recorded", scores)
    told = "attacks has no hazard score on xstest: it scores injection"
    assert (both.returncode, told in both.stderr) == (0, True)
    alone = sluice(tmp_path, "--data", XSTEST, "--recorded", "attacks.jsonl")
    assert alone.returncode == 2
    assert f"error: nothing was measured: {told}" in alone.stderr


def test_an_endpoint_that_is_away_never_shows_its_key(tmp_path: Path) -> None:
    """A key that is missing, or sent where it would show, is told by its variable."""
    asked = ("--data", XSTEST, "--endpoint", "http://example.org/v1", "--api-key-env", "MY_KEY")
    for value in ({}, {"MY_KEY": " \n"}):
        assert "MY_KEY is not set" in sluice(tmp_path, *asked, **value).stderr
    done = sluice(tmp_path, *asked, MY_KEY=KEY)
    assert done.returncode == 2
    assert "unencrypted" in done.stderr
    assert KEY not in done.stderr + done.stdout
