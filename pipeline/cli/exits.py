"""Exit codes, declared once; README documents the same table."""

from __future__ import annotations

from enum import IntEnum

from pipeline.errors import DeadLetterLimit, DependencyUnavailable, Misconfigured


class Exit(IntEnum):
    """What the exit code of a `sluice` command means."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    EMPTY = 4
    DEAD_LETTER_LIMIT = 5
    GATE = 99
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


def code_of(error: BaseException) -> Exit:
    """The exit code an error ends a command with."""
    match error:
        case DeadLetterLimit():
            return Exit.DEAD_LETTER_LIMIT
        case Misconfigured():
            return Exit.USAGE
        case DependencyUnavailable():
            return Exit.UNREACHABLE
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case _:
            return Exit.FAILURE
