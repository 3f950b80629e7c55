"""Errors end as one line, whatever is in them; tracebacks come only when asked for."""

from __future__ import annotations

import pytest

from pipeline.cli import console
from pipeline.cli.exits import Exit
from tests.support.cli import Sluice


@pytest.fixture
def sluice(capfdbinary: pytest.CaptureFixture[bytes]) -> Sluice:
    """The command line."""
    return Sluice(capfdbinary)


@pytest.mark.parametrize("name", [r"a\[/x].txt", "a[/x].txt", "[bold]a", "a\\", ":smile:"])
def test_what_a_person_wrote_is_told_as_it_is(sluice: Sluice, name: str) -> None:
    """Brackets and backslashes are no markup, in errors and in notes."""
    done = sluice("publish", name)
    assert done.code == Exit.USAGE
    assert done.err.startswith(f"error: {name} cannot be read (No such file or directory)")


def test_a_note_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is what a note quotes."""
    console.note(r"skipped a\[/x].txt:1 [red]")
    assert capsys.readouterr().err == "skipped a\\[/x].txt:1 [red]\n"


@pytest.mark.parametrize("group", ["guard", "loadtest", "dlq"])
def test_a_group_without_a_command_says_what_is_missing(sluice: Sluice, group: str) -> None:
    """In one line, and nothing on stdout."""
    done = sluice(group)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.err == "error: Missing command. Try: sluice --help\n"


@pytest.mark.parametrize(("value", "shown"), [("0", False), ("no", False), ("1", True)])
def test_the_variable_that_asks_for_tracebacks_can_say_no(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool
) -> None:
    """As the option reads it."""
    monkeypatch.setenv("SLUICE_DEBUG", value)
    assert ("Traceback" in sluice("publish", "nothing.txt").err) is shown
