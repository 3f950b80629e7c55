"""One replay from its first record to its last, in steps that can be taken up again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.adapters.kafka import Slice
from pipeline.audit_log import Entry, Passed
from pipeline.replay.comparison import Compared, LeftOut
from pipeline.replay.content import text_of
from pipeline.replay.depths import Depth, Result
from pipeline.replay.flips import as_bytes, line
from pipeline.replay.folder import Folder
from pipeline.replay.plan import Plan, Request, left
from pipeline.replay.tally import Tally
from pipeline.sealing import Opener
from pipeline.selection import Selection

STEP_RECORDS: Final = 512
STEP_BYTES: Final = 16 * 1024 * 1024
"""A step ends with the record that reaches either: memory stays bounded."""
SAVE_EVERY_S: Final = 2.0

Emit = Callable[[Sequence[Compared]], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class State:
    """How far a replay has got, and what it has found."""

    tally: Tally
    passed: Passed = field(default_factory=Passed)

    def as_json(self, plan: Plan) -> dict[str, Any]:
        """Everything needed to go on, as a JSON document."""
        passed = self.passed
        return {
            "request": plan.request.as_json(),
            "slices": [[part.partition, part.start, part.end] for part in plan.slices],
            "upto": {str(partition): offset for partition, offset in passed.upto.items()},
            "records": passed.records,
            "unreadable": passed.unreadable,
            "tally": self.tally.state(),
        }


def begun(request: Request) -> State:
    """A replay that has read nothing."""
    return State(tally=Tally(margin=request.margin, tolerance=request.tolerance))


def resumed(request: Request, checkpoint: Mapping[str, Any]) -> State:
    """A replay as the checkpoint has it."""
    tally = Tally.restored(checkpoint["tally"], margin=request.margin, tolerance=request.tolerance)
    upto = {int(partition): offset for partition, offset in checkpoint["upto"].items()}
    records, unreadable = checkpoint["records"], checkpoint["unreadable"]
    return State(tally=tally, passed=Passed(records=records, unreadable=unreadable, upto=upto))


class Run:
    """Reads, decides and counts, step by step."""

    def __init__(
        self,
        plan: Plan,
        state: State,
        *,
        selection: Selection,
        depth: Depth,
        folder: Folder | None = None,
        emit: Emit | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.plan = plan
        self.state = state
        self.stopped = False
        self._selection = selection
        self._depth = depth
        self._folder = folder
        self._emit = emit
        self._opener = opener
        if folder is not None and plan.request.show_text:
            folder.make_private()

    @property
    def done(self) -> int:
        """Offsets passed, of the plan's."""
        return sum(
            self.state.passed.upto.get(part.partition, part.start) - part.start
            for part in self.plan.slices
        )

    def left(self) -> list[Slice]:
        """The slices still to be read."""
        return left(self.plan.slices, self.state.passed.upto)

    def stop(self) -> None:
        """End after the step at hand; what was done is written down."""
        self.stopped = True

    async def go(self, entries: AsyncIterator[Entry]) -> None:
        """Work off the entries of `left`, or as many until `stop`; they count in `state.passed`.

        An error leaves the last checkpoint as it is, seconds old at most.
        """
        saved_s = self._save()
        async for step in _steps(entries):
            await self._take(step)
            if self.stopped:
                break
            if time.monotonic() - saved_s > SAVE_EVERY_S:
                saved_s = self._save()
        self._save()

    async def _take(self, step: Sequence[Entry]) -> None:
        tally = self.state.tally
        wanted = [e for e in step if tally.first(e) and self._selection.wants(e.event)]
        results = await self._depth.judge(wanted)
        if self._emit is not None:
            await self._emit([each for each in results if isinstance(each, Compared)])
        flips = [flip for flip in map(self._count, wanted, results) if flip is not None]
        if self._folder is not None:
            self._folder.write(flips)

    def _count(self, entry: Entry, result: Result) -> bytes | None:
        """Count a record; its line where it is a flip."""
        tally = self.state.tally
        tally.ask(entry)
        if isinstance(result, LeftOut):
            tally.leave_out(entry, result)
            return None
        tally.add(result)
        if not result.flip:
            return None
        document = self._line(result)
        tally.keep(result, document)
        return as_bytes(document)

    def _line(self, flip: Compared) -> dict[str, Any]:
        shown, text = self.plan.request.show_text, None
        if shown:
            found = text_of(flip.entry.event, self._opener)
            text = None if isinstance(found, LeftOut) else found
        return line(flip, self.state.tally.margin, show_text=shown, text=text)

    def _save(self) -> float:
        if self._folder is not None:
            self._folder.save(self.state.as_json(self.plan))
        return time.monotonic()


async def _steps(entries: AsyncIterator[Entry]) -> AsyncIterator[list[Entry]]:
    step: list[Entry] = []
    size_bytes = 0
    async for entry in entries:
        step.append(entry)
        size_bytes += len(entry.frame)
        if len(step) >= STEP_RECORDS or size_bytes >= STEP_BYTES:
            yield step
            step, size_bytes = [], 0
    if step:
        yield step
