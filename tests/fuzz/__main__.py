"""Fuzz with atheris: `python -m tests.fuzz [TARGET ...] [--runs N] [--seed S]`, or run one input.

A line a target says how many inputs it took; a finding's bytes are printed in
base64, for `--input BASE64`. Ends with 1 when there was one.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .catalogue import PLANTED, TARGETS, shared_out
from .target import Target

TIMEOUT_S: Final = 30
"""One input that takes longer is a finding too."""
MEMORY_MB: Final = 2048


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; the exit code."""
    options = _options(arguments)
    if options.input is not None:
        TARGETS[options.targets[0]].run(base64.b64decode(options.input))
        return 0
    wanted = options.targets or list(TARGETS)
    runs = shared_out(options.runs) if not options.targets else dict.fromkeys(wanted, options.runs)
    began_s = time.monotonic()
    planted = fuzz(PLANTED, 100_000, options.seed)
    if not any(line.startswith(f"{PLANTED.name}: 1 unhandled") for line in planted.lines):
        _told(planted)
        _say("error: a planted mistake was not found, so none would be: pip install -e '.[fuzz]'")
        return 2
    bad = {name for name in wanted if _told(fuzz(TARGETS[name], runs[name], options.seed))}
    # A target that was stopped did not take all of its inputs: only whole ones are counted.
    total, found = sum(runs[name] for name in wanted if name not in bad), len(bad)
    _say(f"{total} inputs, {found} targets with findings, {time.monotonic() - began_s:.0f} s")
    return 1 if found else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a target's process ended, and what it has to say."""

    found: bool
    lines: Sequence[str]


def _told(ended: Ended) -> bool:
    """Print an end; whether it was a finding."""
    for line in ended.lines:
        _say(line)
    return ended.found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all, or a target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", metavar="BASE64", help="run one input, as a finding prints it")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    if options.runs < 1 or (options.input is not None and len(options.targets) != 1):
        parser.error("--runs counts from 1; --input goes with exactly one target")
    return options


def fuzz(target: Target, runs: int, seed: int) -> Ended:
    """Run one target in a process of its own, until a finding or `runs` inputs."""
    with tempfile.TemporaryDirectory(prefix="sluice-fuzz-") as folder:
        corpus, crashes = Path(folder, "corpus"), Path(folder, "crashes")
        for each in (corpus, crashes):
            each.mkdir()
        write_seeds(target, corpus)
        ended = subprocess.run(
            [
                sys.executable, "-m", "tests.fuzz.atheris_run", target.name, str(runs),
                str(corpus), f"-artifact_prefix={crashes}/", f"-seed={seed}", "-len_control=0",
                f"-max_len={target.max_bytes}", f"-timeout={TIMEOUT_S}",
                f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=0", "-verbosity=0",
            ],
            env={**os.environ, "TMPDIR": folder},
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        said = ended.stdout.strip()
        # An end without the line that counts is an end too early, whatever its code.
        if ended.returncode == 0 and said.endswith("inputs, 0 unhandled"):
            return Ended(found=False, lines=(said,))
        stopped = tuple(_stopped(target, crashes))
        return Ended(found=True, lines=(ended.stderr[-4000:].strip(), said, *stopped))


def write_seeds(target: Target, corpus: Path) -> None:
    """Write a target's seeds where libFuzzer begins."""
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def _stopped(target: Target, crashes: Path) -> Iterator[str]:
    """The inputs that libFuzzer itself stopped at: too slow, too large, or the end of Python."""
    for path in sorted(crashes.iterdir()):
        kind, given = path.name.split("-")[0], base64.b64encode(path.read_bytes()).decode()
        yield f"{target.name}: {kind}, reproduce: {given}"


def _say(line: str) -> None:
    if line:
        print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
