"""Which answer belongs to which published message: matched by source position.

A message's position is known only once the broker has acknowledged it, and a
quick worker may answer before that. Until then, answers that carry the same
message id are kept; the position decides, because message ids may repeat.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pipeline.errors import SluiceError
from pipeline.events import DeadLetter, Position, Verdict

Answer = Verdict | DeadLetter


@dataclass(slots=True, eq=False)
class Wait:
    """One message that waits; `answer` is done when its verdict or dead letter is here."""

    message_id: str
    answer: asyncio.Future[Answer]
    position: Position | None = None
    early: dict[Position, Answer] = field(default_factory=dict)


class Answers:
    """The waiting messages of one client; the first answer of each wins."""

    def __init__(self) -> None:
        self._unplaced: dict[str, set[Wait]] = {}
        self._placed: dict[Position, Wait] = {}
        self._failure: SluiceError | None = None

    @property
    def waiting(self) -> bool:
        """Whether any message waits; if none does, answers need not be decoded."""
        return bool(self._unplaced or self._placed)

    def open(self, message_id: str) -> Wait:
        """Begin to wait, before publishing; raises what `fail` was given."""
        if self._failure is not None:
            raise self._failure
        wait = Wait(message_id, asyncio.get_running_loop().create_future())
        self._unplaced.setdefault(message_id, set()).add(wait)
        return wait

    def place(self, wait: Wait, position: Position) -> None:
        """Say where the broker put the message; its answer may be here already."""
        self._forget_unplaced(wait)
        wait.position = position
        if position in wait.early:
            _settle(wait, wait.early[position])
        else:
            self._placed[position] = wait
        wait.early.clear()

    def close(self, wait: Wait) -> None:
        """Stop waiting, answered or not."""
        self._forget_unplaced(wait)
        if wait.position is not None:
            self._placed.pop(wait.position, None)
        if wait.answer.done() and not wait.answer.cancelled():
            wait.answer.exception()  # seen, also where nobody came to await it
        wait.answer.cancel()

    def deliver(self, position: Position, message_id: str | None, answer: Answer) -> None:
        """Hand an answer to whoever waits for it; others' answers are dropped."""
        if wait := self._placed.pop(position, None):
            _settle(wait, answer)
            return
        for unplaced in self._unplaced.get(message_id or "", ()):
            unplaced.early.setdefault(position, answer)

    def fail(self, error: SluiceError) -> None:
        """No answers will come any more: every wait, also a later one, raises it."""
        self._failure = error
        for wait in [*self._placed.values(), *(w for ws in self._unplaced.values() for w in ws)]:
            if not wait.answer.done():
                wait.answer.set_exception(error)

    def _forget_unplaced(self, wait: Wait) -> None:
        others = self._unplaced.get(wait.message_id, set())
        others.discard(wait)
        if not others:
            self._unplaced.pop(wait.message_id, None)


def _settle(wait: Wait, answer: Answer) -> None:
    if not wait.answer.done():
        wait.answer.set_result(answer)
