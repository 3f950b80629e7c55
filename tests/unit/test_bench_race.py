"""A contender's end, at whichever moment, is no crash of the one who watches."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from loadtest.bench import race


def test_a_running_contender_has_a_cpu_time() -> None:
    """User and system time, in seconds."""
    process: Any = SimpleNamespace(pid=os.getpid())
    assert (race._cpu_s(process) or 0) > 0


def test_one_that_ended_between_two_looks_has_none() -> None:
    """Its id may be known and the process gone, or both gone: no figure, no error."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, None):
        process: Any = SimpleNamespace(pid=pid)
        assert race._cpu_s(process) is None
