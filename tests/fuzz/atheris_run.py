"""One target under atheris, in a process of its own: `python -m tests.fuzz.atheris_run`.

The product's modules are instrumented while they are imported, so that an
input that reaches new code is kept and changed further. libFuzzer never gives
control back, so this process ends itself when it has had its inputs.
"""

from __future__ import annotations

import base64
import os
import sys
import traceback
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["pipeline"], enable_loader_override=False):
    from tests.fuzz.catalogue import PLANTED, TARGETS
    from tests.fuzz.target import Target


def counted(target: Target, runs: int) -> Callable[[bytes], None]:
    """The target's function for libFuzzer: ends the process at a finding, or after `runs`."""
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        try:
            target.run(data)
        except BaseException:  # whatever it is, it is what was looked for
            traceback.print_exc(limit=-12)
            _end(f"{target.name}: 1 unhandled, reproduce: {base64.b64encode(data).decode()}", 1)
        done += 1
        if done == runs:
            _end(f"{target.name}: {done} inputs, 0 unhandled", 0)

    return one


def _end(line: str, code: int) -> None:
    sys.stderr.flush()
    print(line, flush=True)  # noqa: T201
    os._exit(code)


def main() -> None:
    """Arguments: the target, the number of inputs, then libFuzzer's own."""
    name, runs, *options = sys.argv[1:]
    target = PLANTED if name == PLANTED.name else TARGETS[name]
    atheris.Setup([sys.argv[0], *options], counted(target, int(runs)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
