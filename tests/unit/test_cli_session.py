"""How a command ends that a signal ends: in order, with the code of that signal."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.cli import session

_STOPPED = """
import asyncio, os, signal
from pipeline.cli import session

async def work():
    print("up", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        os.kill(os.getpid(), signal.SIGHUP)  # as kernel and shell each send one
        await asyncio.sleep(0.05)
        print("stopped in order", flush=True)

session.run(work())
"""

_DETACHED = """
import asyncio, os, signal
from pipeline.cli import session

async def work():
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    print("went on", flush=True)

signal.signal(signal.SIGHUP, signal.SIG_IGN)
session.run(work())
"""


_STOPPABLE = """
import asyncio, os, signal
from pipeline.cli import progress, session

async def work():
    stopped = asyncio.Event()
    with progress.stopping(stopped.set):
        print("up", flush=True)
        await stopped.wait()
        {within}
    {after}

async def ended():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print("stopped in order", flush=True)

session.run(work())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_ends_in_order(number: signal.Signals) -> None:
    """What it started is stopped, a second signal does not hurry it, the code stays known."""
    command = subprocess.Popen(
        [sys.executable, "-c", _STOPPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with command:
        assert command.stdout is not None
        assert command.stdout.readline() == "up\n"
        command.send_signal(number)
        out, err = command.communicate(timeout=60)
    assert (out, err) == ("stopped in order\n", "")
    assert command.returncode == 128 + number


@pytest.mark.parametrize("place", ["within", "after"])
def test_a_second_signal_ends_in_order_what_stops_at_the_first(place: str) -> None:
    """A load test stops its stack whenever the second comes; killed, it would leave its folder."""
    script = _STOPPABLE.format(**{"within": "pass", "after": "pass", place: "await ended()"})
    command = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with command:
        assert command.stdout is not None
        assert command.stdout.readline() == "up\n"
        command.send_signal(signal.SIGTERM)
        out, _ = command.communicate(timeout=60)
    assert out == "stopped in order\n"
    assert command.returncode == 128 + signal.SIGTERM


def test_a_detached_command_outlives_its_terminal() -> None:
    """`nohup` had SIGHUP ignored, and so it stays."""
    done = subprocess.run(
        [sys.executable, "-c", _DETACHED], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "went on\n"


def test_a_result_is_handed_on_from_any_thread() -> None:
    """Handlers belong to the main thread; elsewhere the work runs without."""

    async def work() -> int:
        return 7

    assert session.run(work()) == 7
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(session.run, work()).result() == 7


def test_a_cancellation_of_its_own_is_no_signal() -> None:
    """It stays what it is."""

    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        session.run(work())


_LEFT_BEHIND = """
import asyncio, sys
from pipeline.cli import session

async def stubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def work():
    work.task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    return 7

session._LEFT_ENDS_WITHIN_S = 0.1
sys.exit(session.run_quickly(work()))
"""


def test_a_task_that_no_cancellation_ends_does_not_keep_the_process() -> None:
    """Faust's do not while they wait for a broker that is away. What came of it counts."""
    ended = subprocess.run(
        [sys.executable, "-c", _LEFT_BEHIND],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 7
    assert "left-behind" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
