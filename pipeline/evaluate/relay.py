"""Run one filter program that cannot outlive its owner; used as a script.

    python -I -S relay.py COMMAND ARG...

Lines pass straight through: the program inherits both pipes. The relay only
watches: when its owner is gone, or tells it to end, it kills the program's
whole process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
POLL_S = 0.05


def main(command: list[str]) -> int:
    """The program's exit status; 127 when it could not be started."""
    owner = os.getppid()
    libc = ctypes.CDLL(None)
    try:
        child = subprocess.Popen(
            command,
            process_group=0,
            # This process has one thread, so the signal's per-thread rule cannot bite.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 127
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Only the program may hold the pipes: its end must be seen at the other side.
    for descriptor in (0, 1):
        os.close(descriptor)
    try:
        while child.poll() is None and os.getppid() == owner:
            time.sleep(POLL_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
