"""`sluice demo` without a stack: what it does when its surroundings fail."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.cli import console, demo
from pipeline.embedded.process import EmbeddedFailed

from .stacks import BrokenStack


async def test_a_demo_that_is_kept_ends_when_a_part_of_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the part, and keeps the log that tells why."""

    async def shown(_: Any) -> None:
        """Nothing is published."""

    stack = BrokenStack("ended")
    monkeypatch.setattr(demo, "EmbeddedStack", stack)
    monkeypatch.setattr(demo, "_show", shown)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    with pytest.raises(EmbeddedFailed, match="Apache Kafka ended with status 1"):
        await demo._demo(keep=True)
    assert stack.log.exists()


class _Window(io.StringIO):
    """A terminal whose window may be closed."""

    closed_by_user = False

    def write(self, text: str) -> int:
        """As the kernel answers once nobody has the other end."""
        if self.closed_by_user:
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_a_closed_window_is_no_failure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hang-up that comes with it ends the demo, which then leaves nothing behind."""
    window = _Window()
    monkeypatch.setattr(console, "out", Console(file=window, force_terminal=True))
    monkeypatch.setattr(demo, "Live", partial(demo.Live, auto_refresh=False))
    with demo.Screen():
        window.closed_by_user = True
