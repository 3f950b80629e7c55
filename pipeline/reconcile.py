"""Does every input have its one outcome? Counted by topic and partition. Pure.

    inputs = verdicts + dead_letters - both + missing
    records read = verdicts + dead_letters + repeats + outside

Only positions between the bounds count, because retention may have deleted
older inputs and newer ones may not be judged yet. Two bits an input would do;
a byte keeps the code plain, and a million inputs cost one megabyte. Not every
offset holds an input: a transaction's end takes one, and compaction leaves gaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pipeline.events import Position

_VERDICT: Final = 1
_DEAD_LETTER: Final = 2
_EMPTY: Final = 4
_LISTED: Final = 5
_UNMARKED: Final = re.compile(rb"\x00+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The inputs of one partition: offsets [start, end)."""

    topic: str
    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """One partition's inputs against its outcomes.

    `inputs` counts offsets between the bounds, but for those that are known to
    hold no record; `verdicts` and `dead_letters` count inputs that have one; `repeats` the
    records beyond the first of their sort; `both` the inputs that have a
    verdict and a dead letter (a policy, limit or schema changed between two
    deliveries); `missing` the inputs without either. The examples are the
    first few offsets.
    """

    topic: str
    partition: int
    start: int
    end: int
    inputs: int
    verdicts: int
    dead_letters: int
    repeats: int
    both: int
    missing: int
    missing_examples: tuple[int, ...] = ()
    both_examples: tuple[int, ...] = ()

    @property
    def balanced(self) -> bool:
        """True when every input has exactly one outcome."""
        return not self.missing and not self.both


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """All partitions; `outside` counts outcomes of inputs not between the bounds."""

    partitions: tuple[Balance, ...]
    outside: int = 0

    @property
    def balanced(self) -> bool:
        """True when every input of every partition has exactly one outcome."""
        return all(balance.balanced for balance in self.partitions)

    def total(self, name: str) -> int:
        """The sum of a count of `Balance` over all partitions, such as "missing"."""
        return sum(getattr(balance, name) for balance in self.partitions)


class Tally:
    """Marks outcomes as they are read; `report` may be asked at any time."""

    def __init__(self, inputs: Iterable[Span]) -> None:
        self._spans = {(span.topic, span.partition): span for span in inputs}
        self._marks = {
            key: bytearray(max(0, span.end - span.start)) for key, span in self._spans.items()
        }
        self._repeats = dict.fromkeys(self._spans, 0)
        self._outside = 0

    def verdict(self, position: Position) -> None:
        """Count a verdict of the input at `position`."""
        self._mark(position, _VERDICT)

    def dead_letter(self, position: Position) -> None:
        """Count a dead letter of the input at `position`."""
        self._mark(position, _DEAD_LETTER)

    def lacking(self, *, apart: int) -> list[Span]:
        """Where inputs miss their outcome, in order; nearer than `apart` is one stretch."""
        found: list[Span] = []
        for (topic, partition), span in sorted(self._spans.items()):
            for start, end in _stretches(self._marks[topic, partition], apart):
                at = span.start + start, span.start + end
                found.append(Span(topic=topic, partition=partition, start=at[0], end=at[1]))
        return found

    def lacks(self, position: Position) -> bool:
        """Whether the input at `position` is counted and has no outcome yet."""
        span = self._spans.get((position.topic, position.partition))
        if span is None or not span.start <= position.offset < span.end:
            return False
        return self._marks[position.topic, position.partition][position.offset - span.start] == 0

    def empty(self, where: Span) -> None:
        """No record lies at these offsets: those without an outcome are no inputs."""
        span = self._spans[where.topic, where.partition]
        marks = self._marks[where.topic, where.partition]
        start, end = max(0, where.start - span.start), max(0, where.end - span.start)
        marks[start:end] = marks[start:end].replace(b"\0", bytes([_EMPTY]))

    def report(self) -> Reconciliation:
        """The balance of what was counted so far."""
        balances = (self._balance(key) for key in sorted(self._spans))
        return Reconciliation(partitions=tuple(balances), outside=self._outside)

    def _mark(self, position: Position, mark: int) -> None:
        key = (position.topic, position.partition)
        marks = self._marks.get(key)
        index = position.offset - self._spans[key].start if marks is not None else -1
        if marks is None or not 0 <= index < len(marks):
            self._outside += 1
        elif marks[index] & mark:
            self._repeats[key] += 1
        else:  # an outcome says that there was an input, even where compaction took it since
            marks[index] = (marks[index] | mark) & ~_EMPTY

    def _balance(self, key: tuple[str, int]) -> Balance:
        span, marks = self._spans[key], self._marks[key]
        both = marks.count(_VERDICT | _DEAD_LETTER)
        return Balance(
            topic=span.topic,
            partition=span.partition,
            start=span.start,
            end=span.end,
            inputs=len(marks) - marks.count(_EMPTY),
            verdicts=marks.count(_VERDICT) + both,
            dead_letters=marks.count(_DEAD_LETTER) + both,
            repeats=self._repeats[key],
            both=both,
            missing=marks.count(0),
            missing_examples=tuple(_first(marks, 0, span.start)),
            both_examples=tuple(_first(marks, _VERDICT | _DEAD_LETTER, span.start)),
        )


def reconcile(
    inputs: Iterable[Span], verdicts: Iterable[Position], dead_letters: Iterable[Position]
) -> Reconciliation:
    """The balance of inputs against the positions of their outcomes."""
    tally = Tally(inputs)
    for position in verdicts:
        tally.verdict(position)
    for position in dead_letters:
        tally.dead_letter(position)
    return tally.report()


def as_json(report: Reconciliation) -> Mapping[str, Any]:
    """The report as the JSON document that `sluice reconcile --json` prints."""
    counts = ("inputs", "verdicts", "dead_letters", "repeats", "both", "missing")
    return {
        "balanced": report.balanced,
        **{name: report.total(name) for name in counts},
        "outside": report.outside,
        "partitions": [asdict(balance) for balance in report.partitions],
    }


def _stretches(marks: bytearray, apart: int) -> list[tuple[int, int]]:
    """Where there is no mark, [start, end); those that lie near each other are joined."""
    found: list[tuple[int, int]] = []
    for run in _UNMARKED.finditer(marks):
        if found and run.start() - found[-1][1] < apart:
            found[-1] = (found[-1][0], run.end())
        else:
            found.append(run.span())
    return found


def _first(marks: bytearray, mark: int, start: int) -> Iterator[int]:
    """Offsets of the first few inputs that carry exactly `mark`."""
    index = -1
    for _ in range(_LISTED):
        index = marks.find(mark, index + 1)
        if index < 0:
            return
        yield start + index
