"""A child process that is watched while it starts and never left behind.

Every child runs under `keeper.py`, which ends it when this process ends, in
whatever way; see there for how. The child is found by its exit status and by
the last lines of its log, which is where its own words go.

No asyncio child watcher is used: a child may be started in one event loop and
stopped in another, as session-wide test fixtures do.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.embedded.listeners import listens
from pipeline.errors import Misconfigured

_KEEPER = Path(__file__).with_name("keeper.py")
_FILES_REMEDY = "Free space there, or set SLUICE_HOME to a folder that this user may write"
_POLL_S = 0.02
_TAIL_LINES = 15
_TAIL_BYTES = 16_384
_LOG_LIMIT_BYTES = 8 * 1024 * 1024


class EmbeddedFailed(Misconfigured):
    """A part of the embedded stack did not start, or ended unasked.

    `name` says which part; `tail` holds its own last words, possibly none.
    """

    def __init__(self, name: str, problem: str, *, remedy: str, tail: str = "") -> None:
        """`problem` continues the sentence that `name` begins; no full stop."""
        super().__init__(f"{name} {problem}", remedy=remedy)
        self.name = name
        self.tail = tail

    def __str__(self) -> str:
        """The message and the remedy, between them the part's own words."""
        if not self.tail:
            return super().__str__()
        quoted = "\n".join(f"  | {line}" for line in self.tail.splitlines())
        return f"{self.message}. It said:\n{quoted}\n{self.remedy}"


@contextlib.contextmanager
def files_of(name: str, folder: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that cannot be written, into EmbeddedFailed."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a time limit: no file is to blame
            raise
        problem = f"cannot use {error.filename or folder} ({error.strerror})"
        raise EmbeddedFailed(name, problem, remedy=_FILES_REMEDY) from error


class ManagedProcess:
    """One child process in a group of its own, logging to a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        remedy: str,
        env: Mapping[str, str] | None = None,
        grace_s: float = 10.0,
        sweep: str = "",
        keep_open: Sequence[int] = (),
    ) -> None:
        """Describe the child; nothing runs before `start()`.

        `remedy` ends every error about it. `grace_s`: from SIGTERM to SIGKILL.
        `sweep`: glob pattern of files to remove once the child is gone.
        `keep_open`: descriptors that stay open, though not in the child, until
        it is gone; a lock on one of them so outlasts this process.
        """
        self.name = name
        self.log = log
        self._command = list(command)
        self._remedy = remedy
        self._env = env
        self._grace_s = grace_s
        self._sweep = sweep
        self._keep_open = tuple(keep_open)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._log_start = 0
        self._asked_to_end = False

    @property
    def pid(self) -> int | None:
        """The child's process id, also its group's; None when none runs."""
        return self._pid if self.running else None

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._keeper is not None and self._keeper.poll() is None

    @property
    def status(self) -> int | None:
        """The last exit status (128 + n after signal n), None if it runs."""
        return None if self._keeper is None else self._keeper.poll()

    async def start(self) -> None:
        """Spawn the child; raises EmbeddedFailed when it or its log cannot be opened."""
        if self.running:
            return
        if self._keeper is not None:
            await self._ended()  # it ended by itself: let go of its pipes before the next
        with files_of(self.name, self.log.parent):
            keeper = self._spawn()
        assert keeper.stdout is not None
        report = await asyncio.to_thread(keeper.stdout.readline)
        if not report:
            await self._ended()
            raise self.failure("could not be started")
        self._pid = int(report)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the keeper, and remember where the child's log begins."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(self.log.suffix + ".1"))
        keeper = [sys.executable, "-I", "-S", str(_KEEPER), str(self._grace_s), self._sweep]
        self._asked_to_end = False
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._keeper = subprocess.Popen(
                [*keeper, "--", *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=self._env,
                pass_fds=self._keep_open,
                # Out of the terminal's reach: Ctrl-C is for the owner, who stops in order.
                start_new_session=True,
            )
        return self._keeper

    def listens(self, *ports: int) -> bool:
        """Whether these ports are the child's own, or a process's that it started."""
        pid = self.pid
        return pid is not None and all(listens(pid, port) for port in ports)

    async def until(self, ready: Callable[[], Awaitable[bool]], *, timeout_s: float) -> None:
        """Return once `ready()` holds and the child is still there.

        Raises EmbeddedFailed when the child ends first, or when `timeout_s`
        passes; the child is then killed.
        """
        deadline = time.monotonic() + timeout_s
        while not (await ready() and self.running):
            if not self.running:
                status = await self._ended()
                raise self.failure(f"ended with status {status} while starting")
            if time.monotonic() >= deadline:
                await self.kill()
                raise self.failure(f"was not ready within {timeout_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def completed(self, *, timeout_s: float) -> None:
        """Return once the child has ended by itself with status 0.

        Raises EmbeddedFailed for another status, or when `timeout_s` passes;
        the child is then killed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                status = await self._ended()
        except TimeoutError:
            await self.kill()
            raise self.failure(f"did not end within {timeout_s:g} s") from None
        if status != 0:
            raise self.failure(f"ended with status {status}")

    async def stop(self) -> None:
        """SIGTERM, after the grace period SIGKILL to the group; reap it."""
        await self._order(b"T")

    async def kill(self) -> None:
        """SIGKILL to the whole group, without warning; reap it."""
        await self._order(b"K")

    async def _order(self, order: bytes) -> None:
        """Pass an order through the lifeline and wait for the child's end."""
        self._asked_to_end = True
        keeper = self._keeper
        if keeper is None or keeper.stdin is None or keeper.stdin.closed:
            return
        # Broken pipe: it ended by itself in the meantime, which is what was asked for.
        with contextlib.suppress(BrokenPipeError):
            keeper.stdin.write(order)
        await self._ended()

    async def _ended(self) -> int:
        assert self._keeper is not None
        while (status := self._keeper.poll()) is None:
            await asyncio.sleep(_POLL_S)
        for pipe in (self._keeper.stdin, self._keeper.stdout):
            if pipe is not None:
                pipe.close()
        return status

    def said(self) -> str:
        """What the child wrote to its log since its last start, at most 16 KB."""
        if not self.log.exists():  # removed while the child ran
            return ""
        with self.log.open("rb") as log:
            size_bytes = log.seek(0, 2)
            log.seek(max(self._log_start, size_bytes - _TAIL_BYTES))
            return log.read().decode(errors="replace")

    def lost(self) -> EmbeddedFailed | None:
        """The error about an end that nobody asked for; None if there was none."""
        if self.status is None or self._asked_to_end:
            return None
        return self.failure(f"ended by itself with status {self.status}")

    def failure(self, problem: str, *, tail: str = "") -> EmbeddedFailed:
        """The error that names the child, its last words and its log file."""
        words = tail or "\n".join(self.said().splitlines()[-_TAIL_LINES:])
        remedy = f"{self._remedy} (the whole log: {self.log})"
        return EmbeddedFailed(self.name, problem, remedy=remedy, tail=words)
