"""One run of `sluice publish`, and what it came to."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.cli import console, progress, rows
from pipeline.cli.exits import Exit
from pipeline.cli.inputs import Read
from pipeline.cli.pump import Pump, from_thread
from pipeline.client import Client, Unacknowledged
from pipeline.dlq import printable
from pipeline.errors import DeadLettered, Misconfigured, Rejected, Unanswered
from pipeline.events import Message

_IN_FLIGHT: Final = 2000
"""Messages sent but not acknowledged, or not answered: bounds memory."""

_SHOWN_BAD: Final = 10


@dataclass(slots=True, kw_only=True)
class Job:
    """Publishes lines and counts them; `wait_s` None awaits no verdicts.

    `quiet` shows neither verdicts nor their heading.
    """

    skip_bad: bool
    wait_s: float | None
    quiet: bool
    published: int = 0
    skipped: int = 0
    unanswered: int = 0
    dead_letters: int = 0
    interrupted: bool = False
    actions: Counter[str] = field(default_factory=Counter)
    began_s: float | None = None
    ended_s: float | None = None

    async def run(self, client: Client, lines: Iterable[Read], *, rate_per_s: float | None) -> None:
        """Publish all lines; raises the first error once everything sent has ended."""
        async with client:
            self.began_s = time.monotonic()
            pump: Pump[Read, bool] = Pump(
                lambda line: self._send(client, line),
                self._settle,
                in_flight=_IN_FLIGHT,
                rate_per_s=rate_per_s,
            )
            show_rows = self.wait_s is not None and not self.quiet
            if show_rows:
                console.out.print(rows.heading())
            watched = nullcontext() if show_rows else progress.shown(self._line)
            with progress.stopping(lambda: self._interrupt(pump)), watched:
                try:
                    await pump.run(self._good(from_thread(lines)))
                finally:
                    self.ended_s = time.monotonic()

    async def _good(self, lines: AsyncIterator[Read]) -> AsyncIterator[Read]:
        """The lines that hold a message; the others are counted, or end it."""
        async for line in lines:
            if line.error is not None:
                self._bad(line.where, line.error)
            else:
                yield line

    def _bad(self, where: str, error: Rejected) -> None:
        problem = f"{where}: {error.message}"
        if not self.skip_bad:
            raise Misconfigured(problem, remedy=f"{error.remedy}, or pass over it: --skip-bad")
        self.skipped += 1
        if self.skipped <= _SHOWN_BAD:
            console.note(f"skipped {problem}")
        elif self.skipped == _SHOWN_BAD + 1:
            console.note("more are skipped: the end says how many")

    async def _send(self, client: Client, line: Read) -> asyncio.Task[bool]:
        """Queue a line; the task is true when it was published."""
        assert line.message is not None
        try:
            if self.wait_s is None:
                return asyncio.create_task(_done(await client.send(line.message)))
            answer = await client.submit(line.message, timeout_s=self.wait_s)
            return asyncio.create_task(self._answered(line.message, answer))
        except Rejected as error:  # too large for Kafka, for one
            self._bad(line.where, error)
            return asyncio.create_task(_nothing())

    async def _answered(self, message: Message, answer: asyncio.Task[Any]) -> bool:
        """Count and show what a message came to; whether it was published."""
        try:
            verdict = await answer
            self.actions[verdict.action.value] += 1
            row = rows.verdict(verdict)
        except DeadLettered as error:
            self.dead_letters += 1
            row = rows.dead_letter(message, error.reason, at=datetime.now(UTC))
        except Unanswered as error:
            self.unanswered += 1
            return not isinstance(error, Unacknowledged)
        if not self.quiet:
            console.out.print(row)
        return True

    def _settle(self, task: asyncio.Task[bool]) -> BaseException | None:
        if task.cancelled():
            return None
        error = task.exception()
        if error is None and task.result():
            self.published += 1
        return error

    def _interrupt(self, pump: Pump[Read, bool]) -> None:
        self.interrupted = True
        console.note("stopping: waiting for what was sent (Ctrl-C again leaves at once)")
        pump.stop()

    def exit_code(self) -> Exit:
        """130 when interrupted, 1 when a verdict did not come, else 0."""
        if self.interrupted:
            return Exit.INTERRUPTED
        return Exit.FAILURE if self.unanswered else Exit.OK

    def report(self, *, ignored: Collection[str], as_json: bool) -> None:
        """Say what was published, on stderr, and as JSON on stdout if asked."""
        if self.began_s is None:
            return
        console.note(self._line())
        if ignored:
            named = printable(", ".join(sorted(ignored))[:200])
            console.note(f"not sent: {named} (fields that are unknown, or only for completions)")
        if self.unanswered:
            what = "message has" if self.unanswered == 1 else "messages have"
            console.error(
                f"{self.unanswered:,} {what} no verdict after {self.wait_s:g} s."
                " See that a worker runs: `sluice doctor`"
            )
        if as_json:
            console.print_json(self.summary())

    def summary(self) -> dict[str, Any]:
        """The counts, as `--json` prints them."""
        return {
            "published": self.published,
            "skipped": self.skipped,
            "interrupted": self.interrupted,
            "elapsed_s": round(self._elapsed_s(), 3),
            "actions": dict(self.actions),
            "dead_letters": self.dead_letters,
            "unanswered": self.unanswered,
        }

    def _line(self) -> str:
        seconds = self._elapsed_s()
        per_s = self.published / max(seconds, 0.001)
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        return f"published {self.published:,} in {seconds:.1f} s ({per_s:,.0f} per s){skipped}"

    def _elapsed_s(self) -> float:
        if self.began_s is None:
            return 0.0
        return (self.ended_s or time.monotonic()) - self.began_s


async def _done(acknowledged: asyncio.Future[Any]) -> bool:
    await acknowledged
    return True


async def _nothing() -> bool:
    return False
