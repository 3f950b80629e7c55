"""`python -m loadtest.bench`: what a message costs the worker, beside its peers."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from loadtest.bench import contenders, session, table
from loadtest.bench.answer import say
from loadtest.bench.session import Plan
from pipeline.errors import SluiceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0, or 1 when a contender did not do the work it was measured for."""
    given = _parser().parse_args(arguments)
    plan = Plan(messages=given.messages, rounds=given.rounds, only=tuple(given.only))
    try:
        report = asyncio.run(session.run(plan, say=say))
    except SluiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\n".join(table.lines(report)))
    if given.json is not None:
        given.json.write_bytes(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--messages", type=_positive, default=20_000, help="a contender a round")
    parser.add_argument("--rounds", type=_positive, default=5, help="interleaved; medians count")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=contenders.NAMES,
        default=contenders.NAMES,
        metavar="NAME",
        help=f"contenders, of: {', '.join(contenders.NAMES)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
