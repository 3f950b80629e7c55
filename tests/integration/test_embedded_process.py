"""Children of the embedded stack: watched while they start, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.embedded.process import EmbeddedFailed, ManagedProcess

_DEADLINE_S = 10.0
# Ignores SIGTERM and has a helper that does so too, as a hung server would.
_STUBBORN = "trap '' TERM; sleep 600 & echo helper $!; echo up; while :; do sleep 0.05; done"


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether `holds()` becomes true before the deadline."""
    deadline = time.monotonic() + _DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(pid: int) -> bool:
    """Whether no such process exists, not counting one that is only unreaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def shell(tmp_path: Path, script: str, *, grace_s: float = 10.0) -> ManagedProcess:
    """A managed shell that runs `script`."""
    log = tmp_path / "child.log"
    return ManagedProcess(
        "the part", ["sh", "-c", script], log=log, remedy="Do the other thing", grace_s=grace_s
    )


async def started(process: ManagedProcess) -> int:
    """Start a script that says `up`; return the process id of its helper."""

    async def is_up() -> bool:
        return "up\n" in process.said()

    await process.start()
    await process.until(is_up, timeout_s=_DEADLINE_S)
    return int(process.said().split()[1])


def test_an_orderly_stop_is_a_sigterm(tmp_path: Path) -> None:
    """A child that honours SIGTERM ends by it and says so in its status."""

    async def scenario() -> ManagedProcess:
        process = shell(tmp_path, "sleep 600 & echo helper $!; echo up; wait")
        helper = await started(process)
        await process.stop()
        assert is_gone(helper)
        return process

    process = asyncio.run(scenario())
    assert (process.running, process.pid, process.status) == (False, None, 128 + signal.SIGTERM)


def test_after_the_grace_period_the_whole_group_is_killed(tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed with its helpers, in time."""

    async def scenario() -> tuple[ManagedProcess, int]:
        process = shell(tmp_path, _STUBBORN, grace_s=0.3)
        helper = await started(process)
        await process.stop()
        return process, helper

    before = time.monotonic()
    process, helper = asyncio.run(scenario())
    assert process.status == 128 + signal.SIGKILL
    assert time.monotonic() - before < 3
    assert is_gone(helper)


def test_helpers_do_not_outlive_a_child_that_crashes(tmp_path: Path) -> None:
    """When the child dies by itself, what it had started is ended too."""

    async def scenario() -> int:
        process = shell(tmp_path, _STUBBORN)
        helper = await started(process)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(EmbeddedFailed, match="status 137"):
            await process.completed(timeout_s=_DEADLINE_S)
        return helper

    assert is_gone(asyncio.run(scenario()))


def test_an_early_end_is_told_with_the_last_words(tmp_path: Path) -> None:
    """The error names the part, its status, its last words and the remedy."""

    async def never() -> bool:
        return False

    async def scenario() -> None:
        process = shell(tmp_path, "echo the disk is full; exit 3")
        await process.start()
        await process.until(never, timeout_s=_DEADLINE_S)

    with pytest.raises(EmbeddedFailed) as caught:
        asyncio.run(scenario())
    assert caught.value.message == "the part ended with status 3 while starting"
    assert caught.value.tail == "the disk is full"
    assert "Do the other thing" in str(caught.value)


def test_silence_ends_with_the_time_limit(tmp_path: Path) -> None:
    """A child that never becomes ready is killed and reported."""

    async def never() -> bool:
        return False

    async def scenario() -> ManagedProcess:
        process = shell(tmp_path, "exec sleep 600")
        await process.start()
        with pytest.raises(EmbeddedFailed, match=r"not ready within 0\.2 s"):
            await process.until(never, timeout_s=0.2)
        return process

    assert not asyncio.run(scenario()).running


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """A missing program is an error that names it, not a traceback."""
    process = ManagedProcess(
        "the part", ["/nonexistent/program"], log=tmp_path / "log", remedy="Install it"
    )
    with pytest.raises(EmbeddedFailed) as caught:
        asyncio.run(process.start())
    assert "cannot start /nonexistent/program: No such file" in caught.value.tail


def test_the_thread_that_spawned_may_end(tmp_path: Path) -> None:
    """A child started in a short-lived thread lives on after the thread."""
    process = shell(tmp_path, _STUBBORN, grace_s=0.1)
    thread = threading.Thread(target=lambda: asyncio.run(started(process)))
    thread.start()
    thread.join()
    assert process.running
    asyncio.run(process.stop())
    assert not process.running


def test_nothing_outlives_an_owner_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL of the owner ends child and helpers, and sweeps their files."""
    leftover = tmp_path / "swept_region"
    owner = textwrap.dedent(
        f"""
        import asyncio, pathlib, time
        from pipeline.embedded.process import ManagedProcess
        async def main():
            process = ManagedProcess("the part", ["sh", "-c", {_STUBBORN!r}], remedy="",
                log=pathlib.Path({str(tmp_path / "child.log")!r}), grace_s=0.2,
                sweep={str(tmp_path / "swept_*")!r})
            await process.start()
            while "up\\n" not in process.said():
                await asyncio.sleep(0.01)
            pathlib.Path({str(leftover)!r}).touch()
            print(process.pid, process.said().split()[1], flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 2
    assert eventually(lambda: all(is_gone(pid) for pid in pids))
    assert eventually(lambda: not leftover.exists())
