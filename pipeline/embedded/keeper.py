"""Run one command that cannot outlive its owner; used as a script.

    python -I -S keeper.py GRACE_S SWEEP -- COMMAND ARG...

Standard input is the lifeline. The owner holds its other end and writes `T`
(terminate) or `K` (kill) there; end of file means that the owner is gone, and
counts as `T`. The kernel closes the lifeline however the owner dies, so
SIGKILL of the owner is covered, and the thread that spawned may end freely
(a parent-death signal in the owner would fire at the end of that *thread*).

The command leads a process group of its own. Its process id is printed to
standard output once it runs; its output goes to standard error. GRACE_S
seconds after `T` the whole group is killed. When the command has ended, what
is left of its group is killed and files matching SWEEP (a glob pattern, or
empty) are removed. The exit status is the command's: 128 + n after signal n,
127 when it could not be started.

It is a script of its own because a hook between fork and exec is only safe in
a process with one thread, and because somebody has to remain who knows the
group when owner and command are both gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Keeper:
    """One running command, its group and the lifeline to its owner."""

    def __init__(self, command: list[str], *, grace_s: float) -> None:
        """Start the command; raises OSError when it cannot be executed."""
        self.grace_s = grace_s
        self.kill_at: float | None = None
        libc = ctypes.CDLL(None)
        # Second line of defence: should the keeper itself be killed, the kernel kills the
        # command. The keeper has one thread, so the signal's per-thread rule cannot bite.
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,
            process_group=0,
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
        )

    def terminate(self, _signum: int = 0, _frame: FrameType | None = None) -> None:
        """Ask the command, not its helpers, to end; start the grace period."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.grace_s
            self.child.send_signal(signal.SIGTERM)

    def kill_group(self) -> None:
        """SIGKILL whatever is left of the command's process group."""
        # No such group: it is empty, nothing was left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def obey(self, order: bytes) -> None:
        """Act on bytes from the lifeline; none at all: the owner is gone."""
        if b"K" in order:
            self.kill_group()
        else:
            self.terminate()

    def wait(self) -> int:
        """Serve the lifeline until the command ends; return its exit status."""
        ended = os.pidfd_open(self.child.pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(0, select.POLLIN | select.POLLHUP)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(self._patience_ms())}
            if ended in ready:
                break
            if 0 in ready:
                order = os.read(0, 16)
                self.obey(order)
                if not order:
                    poll.unregister(0)
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.kill_group()
        # Killed before it is reaped: until then nobody else can own this group number.
        self.kill_group()
        status = self.child.wait()
        return status if status >= 0 else 128 - status

    def _patience_ms(self) -> float | None:
        if self.kill_at is None:
            return None
        return max(self.kill_at - time.monotonic(), 0.05) * 1000


def main(arguments: list[str]) -> int:
    """Run the command line described above; return the exit status."""
    grace_s, sweep, command = float(arguments[0]), arguments[1], arguments[3:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        keeper = Keeper(command, grace_s=grace_s)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return 127
    signal.signal(signal.SIGTERM, keeper.terminate)
    sys.stdout.write(f"{keeper.child.pid}\n")
    sys.stdout.close()
    try:
        return keeper.wait()
    finally:
        if sweep:
            for leftover in Path(sweep).parent.glob(Path(sweep).name):
                leftover.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
