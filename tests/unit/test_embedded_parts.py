"""One part of the embedded stack: its port, its lock, its files and its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.embedded.loopback import HOST
from pipeline.embedded.process import EmbeddedFailed, ManagedProcess, files_of

_WITHIN_S = 30.0
_LISTENER = f"""
import socket, time
server = socket.create_server(("{HOST}", 0))
print("port", server.getsockname()[1], flush=True)
time.sleep(600)
"""


@asynccontextmanager
async def running(
    tmp_path: Path, *command: str, keep_open: tuple[int, ...] = ()
) -> AsyncIterator[ManagedProcess]:
    """A part that runs `command`, until the block ends."""
    name = f"part-{len(list(tmp_path.iterdir()))}"
    part = ManagedProcess(
        name, command, log=tmp_path / name, remedy="Do the other thing", keep_open=keep_open
    )
    await part.start()
    try:
        yield part
    finally:
        await part.kill()


def said(part: ManagedProcess, word: str) -> Callable[[], Awaitable[bool]]:
    """Whether the part has said a word."""

    async def ready() -> bool:
        return f"{word}\n" in part.said() or f"{word} " in part.said()

    return ready


@pytest.mark.parametrize("start", ["", 'sh -c \'exec "$0" "$@" & wait\' '])
async def test_a_port_is_known_to_be_another_parts(tmp_path: Path, start: str) -> None:
    """Only the part that listens, itself or through a helper, is said to listen."""
    listener = ["sh", "-c", f'{start}"$0" -c "$1"', sys.executable, _LISTENER]
    async with running(tmp_path, *listener) as ours, running(tmp_path, "sleep", "600") as other:
        await ours.until(said(ours, "port"), timeout_s=_WITHIN_S)
        port = int(ours.said().split()[1])
        assert ours.listens(port)
        assert not other.listens(port)
        assert not ours.listens(port, 1)
    assert not ours.listens(port)


async def test_an_ipv6_listener_counts(tmp_path: Path) -> None:
    """A JVM listens on loopback with an IPv6 socket; it is found as well."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    create = 'socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)'
    code = _LISTENER.replace(f'socket.create_server(("{HOST}", 0))', create)
    async with running(tmp_path, sys.executable, "-c", code) as part:
        await part.until(said(part, "port"), timeout_s=_WITHIN_S)
        assert part.listens(int(part.said().split()[1]))


async def test_an_answer_of_somebody_else_is_not_the_childs(tmp_path: Path) -> None:
    """A child that ended is an error, though what it was to serve answers."""

    async def answers() -> bool:
        return not part.running

    async with running(tmp_path, "sh", "-c", "echo address in use; exit 1") as part:
        with pytest.raises(EmbeddedFailed, match="ended with status 1 while starting"):
            await part.until(answers, timeout_s=_WITHIN_S)


async def test_a_lock_outlasts_its_owner(tmp_path: Path) -> None:
    """It holds until the child is gone, and the child has no part in it."""
    lock = tmp_path / "lock"
    with lock.open("w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        script = "ls -l /proc/self/fd; echo listed; sleep 600"
        starting = running(tmp_path, "sh", "-c", script, keep_open=(ours.fileno(),))
        part = await starting.__aenter__()
    await part.until(said(part, "listed"), timeout_s=_WITHIN_S)
    with lock.open("w") as theirs:
        with pytest.raises(BlockingIOError):
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await starting.__aexit__(None, None, None)
        fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert str(lock) not in part.said()


async def test_an_end_that_nobody_asked_for_is_told(tmp_path: Path) -> None:
    """With status and last words; none while it runs, also when the log was removed."""
    async with running(tmp_path, "sh", "-c", "echo last words; sleep 600") as part:
        await part.until(said(part, "words"), timeout_s=_WITHIN_S)
        assert part.lost() is None
        assert part.pid is not None
        os.kill(part.pid, signal.SIGKILL)
        with pytest.raises(EmbeddedFailed):
            await part.completed(timeout_s=_WITHIN_S)
        lost = part.lost()
        assert lost is not None
        assert lost.message == f"{part.name} ended by itself with status 137"
        assert lost.tail == "last words"
        part.log.unlink()
        lost = part.lost()
        assert lost is not None
        assert lost.tail == ""


@pytest.mark.parametrize("end", [ManagedProcess.stop, ManagedProcess.kill])
async def test_an_end_that_was_asked_for_is_no_loss(
    tmp_path: Path, end: Callable[[ManagedProcess], Awaitable[None]]
) -> None:
    """Neither stop nor kill counts; started again, it is watched again."""
    async with running(tmp_path, "sleep", "600") as part:
        await end(part)
        assert part.lost() is None
        await part.start()
        assert part.pid is not None
        os.kill(part.pid, signal.SIGKILL)
        with pytest.raises(EmbeddedFailed):
            await part.completed(timeout_s=_WITHIN_S)
        assert part.lost() is not None


async def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error says which file, why, and what to do."""
    (tmp_path / "file").touch()
    part = ManagedProcess("the part", ["true"], log=tmp_path / "file" / "log", remedy="")
    with pytest.raises(EmbeddedFailed, match=r"cannot use .*file.*SLUICE_HOME") as caught:
        await part.start()
    assert caught.value.name == "the part"


def test_a_full_disk_names_the_folder() -> None:
    """A write to a full disk names no file; the folder stands in for it."""
    with (
        pytest.raises(EmbeddedFailed, match=r"cannot use /data \(No space left.*Free space"),
        files_of("Kafka", Path("/data")),
    ):
        raise OSError(28, os.strerror(28))


def test_a_time_limit_is_no_problem_of_a_file() -> None:
    """It passes as it is."""
    with pytest.raises(TimeoutError), files_of("Kafka", Path("/data")):
        raise TimeoutError


async def test_nothing_is_read_through_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness is asked of loopback itself, whatever http_proxy says."""
    from pipeline.embedded.loopback import http_status

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        writer.close()

    monkeypatch.setenv("http_proxy", f"http://{HOST}:9")
    monkeypatch.delenv("no_proxy", raising=False)
    async with await asyncio.start_server(answer, HOST, 0) as server:
        assert await http_status(server.sockets[0].getsockname()[1], "/readyz") == 200
