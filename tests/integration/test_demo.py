"""`sluice demo` as a newcomer runs it, and what Ctrl-C leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

from pipeline.cli.exits import Exit

_MARK = "TEST_DEMO_MARK"


@pytest.fixture
def mark() -> Iterator[str]:
    """A name that every process of one demo carries in its environment."""
    name = uuid.uuid4().hex
    yield name
    for process in _marked(name):
        process.kill()


def _start(mark: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", *arguments],
        env={**os.environ, _MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found


def _gone(mark: str, within_s: float = 10.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while _marked(mark):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.1)
    return True


def test_demo_reconciles_and_leaves_nothing(mark: str) -> None:
    """The demo ends balanced, reports its idle latency, and no process is left."""
    output, _ = _start(mark).communicate(timeout=180)
    assert "balanced: every input has exactly one outcome" in output
    assert "idle to verdict, one short message at a time: median" in output
    assert _gone(mark)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("serves at", signal.SIGINT, Exit.INTERRUPTED),
        ("serves at", signal.SIGTERM, Exit.TERMINATED),
        ("is ready", signal.SIGINT, Exit.INTERRUPTED),
        ("is ready", signal.SIGHUP, Exit.HUNG_UP),
        ("idle to verdict", signal.SIGINT, Exit.INTERRUPTED),
    ],
)
def test_a_signal_at_any_moment_leaves_nothing(
    mark: str, moment: str, number: signal.Signals, code: Exit
) -> None:
    """While it starts, when it is up or amid traffic: the signal's exit code, no process left."""
    demo = _start(mark)
    assert demo.stdout is not None
    for line in demo.stdout:
        if moment in line:
            break
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == code, output
    assert "Traceback" not in output
    assert _gone(mark)


def test_keep_leaves_it_running_until_interrupted(mark: str) -> None:
    """With --keep the stack stays and says how to reach it; Ctrl-C ends it."""
    demo = _start(mark, "--keep")
    assert demo.stdout is not None
    for line in demo.stdout:
        if "export SLUICE_KAFKA__BOOTSTRAP_SERVERS=" in line:
            break
    assert len(_marked(mark)) > 3
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == Exit.INTERRUPTED
    assert _gone(mark)
