"""The command line, run in this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import orjson
import pytest

from pipeline.cli import app, session


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return orjson.loads(self.out)


class Sluice:
    """Calls `sluice` as the installed script does."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> Done:
        """Run a command to its end; its logging set-up is left out, it is the process's."""
        self._capture.readouterr()
        with (
            patch.object(sys, "argv", ["sluice", *arguments]),
            patch.object(session, "quiet"),
            pytest.raises(SystemExit) as ended,
        ):
            app.main()
        out, err = self._capture.readouterr()
        return Done(code=int(ended.value.code or 0), out=out.decode(), err=err.decode())
