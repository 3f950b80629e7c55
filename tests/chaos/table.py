"""Results as the table in RESULTS.md: `python -m tests.chaos.table`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.chaos import results
from tests.chaos.catalogue import Fault, Seen
from tests.chaos.faults import FAULTS

PATH: Final = Path(__file__).with_name("RESULTS.md")
_VERSIONS: Final = ("sluice", "faust-streaming", "aiokafka", "nvidia-pytriton", "tritonclient")
_HEAD: Final = (
    "fault", "inputs", "verdicts", "distinct ids", "dead letters", "lost", "duplicates",
    "after dedupe", "audit chains", "lasted, s", "recovered, s", "peak, MiB",
)  # fmt: skip


def main() -> None:
    """Write RESULTS.md from the results that lie on disk; fails where one is missing or red."""
    found = results.read()
    PATH.write_text(render(found, when=datetime.now(UTC)))
    missing = [fault.name for fault in FAULTS if fault.name not in found]
    red = [name for name, result in found.items() if result.get("broken")]
    print(f"{PATH}: {len(found)} faults, red: {red or 'none'}, missing: {missing or 'none'}")  # noqa: T201
    if missing or red:
        raise SystemExit(1)


def render(found: dict[str, dict[str, Any]], *, when: datetime) -> str:
    """The whole document."""
    return "\n".join([*_preface(when), *_figures(found), "", *_catalogue(found)]) + "\n"


def _preface(when: datetime) -> Iterator[str]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS)
    yield "# What each fault came to"
    yield ""
    yield "`make chaos` writes this file; it is a run's, not a promise's. Every fault strikes a"
    yield "real Kafka broker and a real Triton with the toy guard of the tests, under a steady load"
    yield "of 200 messages a second, one in fifty of them malformed. The load is numbered, so that"
    yield "no seed is needed: nothing but the moment is left to chance."
    yield ""
    yield f"{when:%Y-%m-%d}, {os.cpu_count()} cores shared with other work,"
    yield f"{platform.system()}, Python {platform.python_version()}, {versions}."
    yield ""
    yield "*verdicts* are records, *distinct ids* inputs that have one; *lost* are inputs without"
    yield "any outcome; *duplicates* are records, dead letters included, beyond the first of their"
    yield "id, and *after dedupe* the verdicts among them that `pipeline.dedupe` lets pass."
    yield "*recovered* is from healing until the group has"
    yield "committed up to the end of both topics, of which the load itself lasts one second."
    yield "Every run also checks: no verdict says `scored` without a guard, no input has a verdict"
    yield "and a dead letter, every verdict has its audit event, no repeat decides otherwise, no"
    yield "commit goes back or lies before an outcome, memory stays flat, and `sluice audit verify`"
    yield "proves the audit log: *audit chains* is how many its writers left."
    yield ""


def _figures(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| " + " | ".join(_HEAD) + " |"
    yield "| --- " + "| ---: " * (len(_HEAD) - 1) + "|"
    for fault in FAULTS:
        if fault.name in found:
            yield _row(fault, found[fault.name])


def _row(fault: Fault, result: dict[str, Any]) -> str:
    if why := result.get("left_out"):
        return f"| {fault.name} | left out: {why} |" + " |" * (len(_HEAD) - 2)
    account = result["account"]
    figures = (
        account["inputs"], account["verdict_records"], account["distinct_ids"],
        account["dead_letters"], account["lost"], account["duplicates"], account["after_dedupe"],
        result["chains"], result["lasted_s"], result["recovered_s"], f"{result['rss_mib']:g}",
    )  # fmt: skip
    mark = " **(red)**" if result["broken"] else ""
    return f"| {fault.name}{mark} | " + " | ".join(str(figure) for figure in figures) + " |"


def _catalogue(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "## What happens, and what the operator sees"
    for fault in FAULTS:
        yield ""
        yield f"**{fault.name}.** {fault.does} Healed: {fault.heals}."
        yield f"Seen: {'; '.join(_seen(fault.seen)) or 'nothing, work goes on'}."
        for broken in found.get(fault.name, {}).get("broken", ()):
            yield f"Broken: {broken}."


def _seen(seen: Seen) -> Iterator[str]:
    if seen.down:
        yield "the worker does not answer"
    if seen.check:
        yield f"readiness check `{seen.check}` fails"
    if seen.exit is not None:
        yield f"the worker ends with exit code {seen.exit}"
    for words in seen.said:
        yield f"the log says `{words}`"
    if seen.metric and seen.alert:
        yield f"`{seen.metric}` rises"
    if seen.alert:
        yield f"alert `{seen.alert}` if it lasts"


if __name__ == "__main__":
    main()
