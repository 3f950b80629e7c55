"""A slip costs no run: benchmarks refuse it at once, and end with a line instead of a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtest.bench import __main__ as contest
from loadtest.bench import ceiling, replay, scaling, scene, session
from loadtest.bench.answer import answer
from pipeline import settings
from pipeline.errors import Misconfigured

Main = Callable[[Sequence[str]], int]

WRONG: list[tuple[Main, list[str]]] = [
    (contest.main, ["--messages", "0"]),
    (contest.main, ["--rounds", "x"]),
    (contest.main, ["--only", "nobody"]),
    (contest.main, ["--json", "/nonexistent/x.json"]),
    (ceiling.main, ["--messages", "0"]),
    (ceiling.main, ["--rounds", "0"]),
    (ceiling.main, ["--json", "/nonexistent/x.json"]),
    (scaling.main, ["--messages", "0"]),
    (scaling.main, ["--long-run", "-1"]),
    (scaling.main, ["--json", "/nonexistent/x.json"]),
    (replay.main, ["--records", "0"]),
    (replay.main, ["--rounds", "0"]),
]


async def found() -> dict[str, Any]:
    """A measurement that took no time."""
    return {"value": 1}


async def interrupted() -> dict[str, Any]:
    """A measurement that Ctrl-C ended."""
    raise KeyboardInterrupt


async def without_java(*_: object, **_more: object) -> Any:
    """A measurement that lacks something."""
    raise Misconfigured("there is no Java", remedy="Install one")


def lines(_found: object) -> list[str]:
    """The result as a person reads it."""
    return ["a table"]


@pytest.mark.parametrize(("main", "given"), WRONG)
def test_wrong_options_end_with_a_usage_error(
    main: Main, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line, before anything is started."""
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "usage:" in said
    assert f"argument {given[0]}: " in said
    assert " _" not in said.splitlines()[-1]


def test_a_folder_is_no_file_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be noticed only after all rounds."""
    with pytest.raises(SystemExit):
        ceiling.main(["--json", str(tmp_path)])
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("main", "module", "name"),
    [
        (contest.main, session, "run"),
        (ceiling.main, ceiling, "measure"),
        (scaling.main, scaling, "measure"),
        (replay.main, replay, "measure"),
    ],
)
def test_what_is_lacking_is_told_in_a_line(
    main: Main,
    module: Any,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error that says what to do: exit code 1, no traceback."""
    monkeypatch.setattr(module, name, without_java)
    assert main([]) == 1
    assert capsys.readouterr().err == "error: there is no Java. Install one\n"


def test_ctrl_c_ends_a_benchmark_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a shell expects it: 130."""
    assert answer(interrupted(), lines, None) == 130
    monkeypatch.setattr(replay, "measure", lambda *_: interrupted())
    assert replay.main([]) == 130
    assert capsys.readouterr().err == ""


def test_the_table_is_printed_though_the_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that went away meanwhile takes no figures with it."""
    assert answer(found(), lines, tmp_path / "gone" / "x.json") == 1
    said = capsys.readouterr()
    assert said.out == "a table\n"
    assert said.err.startswith("error: ")
    assert "cannot be written" in said.err


def test_figures_go_to_the_file(tmp_path: Path) -> None:
    """As the values that JSON knows."""
    path = tmp_path / "x.json"
    assert answer(found(), lines, path, plain=lambda given: {"n": given["value"]}) == 0
    assert json.loads(path.read_bytes()) == {"n": 1}


def test_worker_and_triton_alone_run_under_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever they come: the environment, a file that names a first guard, the command."""
    monkeypatch.chdir(tmp_path)
    Path("sluice.toml").write_text('[guards]\nfirst = "first"\nmax_rows = 7\n')
    monkeypatch.setenv("SLUICE_GUARDS__MAX_TOKENS", "512")
    monkeypatch.setenv("SLUICE_TOPICS__PROMPTS", "mine")
    at = settings.load({"guards": {"cache_entries": 0, "first": None}})
    for_worker = scene.variables(ceiling.for_worker(at))
    monkeypatch.setattr(os, "environ", {**for_worker, "SLUICE_WORKER__ID": "worker-1"})
    worker = settings.load()
    assert (worker.guards.max_tokens, worker.guards.max_rows, worker.guards.first) == (512, 7, None)
    assert (worker.guards, worker.topics, worker.triton) == (at.guards, at.topics, at.triton)


def test_triton_alone_is_driven_with_one_guard() -> None:
    """Two are refused before a stack is started."""
    given = settings.load({"guards": {"names": ["default", "first"]}})
    with pytest.raises(Misconfigured, match="has 2 guards"):
        ceiling.only_guard(given)


def test_sections_and_single_settings_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker is given beside a section of the run's changes that one setting."""
    chosen = scene.variables({"worker": {"id": "own", "http_port": 1}})
    monkeypatch.setattr(os, "environ", {**chosen, "SLUICE_WORKER__ID": "worker-1"})
    found = settings.load().worker
    assert (found.id, found.http_port) == ("worker-1", 1)
