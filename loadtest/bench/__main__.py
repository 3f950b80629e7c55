"""`python -m loadtest.bench`: what a message costs the worker, beside its peers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from loadtest.bench import contenders, session, table
from loadtest.bench.answer import answer, say
from loadtest.bench.options import positive, writable
from loadtest.bench.session import Plan, Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0, or 1 when a contender did not do the work it was measured for."""
    given = _parser().parse_args(arguments)
    plan = Plan(messages=given.messages, rounds=given.rounds, only=tuple(given.only))
    return answer(session.run(plan, say=say), table.lines, given.json, plain=Report.as_json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--messages", type=positive, default=20_000, help="a contender a lap")
    parser.add_argument("--rounds", type=positive, default=5, help="interleaved; medians count")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=contenders.NAMES,
        default=contenders.NAMES,
        metavar="NAME",
        help=f"contenders, of: {', '.join(contenders.NAMES)}",
    )
    parser.add_argument("--json", type=writable, metavar="FILE", help="write every figure there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
