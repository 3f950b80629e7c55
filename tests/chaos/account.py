"""The exact account of a run, by id: what went in, what came out, what did not.

Pure. A million inputs cost a few megabytes: two bytes a position.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

from pipeline.dedupe import Deduplicator
from pipeline.events import Position, Status, Verdict

_INPUT: Final = 1
_MALFORMED: Final = 2
_VERDICT: Final = 4
_LETTER: Final = 8
_AUDIT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Every figure of a run; those of `faults` must be 0.

    `duplicates` counts records beyond the first of their id, and
    `after_dedupe` those of them that a consumer's `dedupe` lets pass.
    """

    inputs: int
    verdict_records: int
    distinct_ids: int
    dead_letters: int
    duplicates: int
    versions: tuple[str, ...]
    policies: tuple[str, ...]
    unscanned: int
    unpublished: int
    lost: int
    both: int
    after_dedupe: int
    misnamed: int
    misjudged: int
    unproved: int
    unaudited: int
    strangers: int
    contradicted: int

    def faults(self) -> dict[str, int]:
        """What broke a promise, by name."""
        names = (
            "unpublished", "lost", "both", "after_dedupe", "misnamed", "misjudged", "unproved",
            "unaudited", "strangers", "contradicted",
        )  # fmt: skip
        return {name: count for name in names if (count := getattr(self, name))}


class Reckoning:
    """Counts records as they are read: inputs first, then outcomes in their order."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, int], bytearray] = defaultdict(bytearray)
        self._actions: dict[tuple[str, int], bytearray] = defaultdict(bytearray)
        self._numbers = bytearray()
        self._dedupe = Deduplicator()
        self._passed = 0
        self._counts: Counter[str] = Counter()
        self._versions: set[str] = set()
        self._policies: set[str] = set()
        self._decisions: dict[str, int] = {}

    def input(self, position: Position, number: int | None, *, malformed: bool) -> None:
        """An input; `number` is the load's, None for what was published beside it."""
        _put(self._marks[_place(position)], position.offset, _INPUT | _MALFORMED * malformed)
        if number is not None:
            _put(self._numbers, number, 1)

    def verdict(self, verdict: Verdict) -> None:
        """A verdict record, repeats included."""
        at = verdict.source
        self._counts["verdicts"] += 1
        self._passed += self._dedupe.is_new(at)
        self._counts["misnamed"] += verdict.verdict_id != str(at)
        self._counts["unscanned"] += verdict.status is Status.UNSCANNED
        self._counts["unproved"] += _unproved(verdict)
        self._versions |= {guard.version for guard in verdict.guards}
        self._policies.add(verdict.policy.digest)
        self._compare(at, f"{verdict.status}/{verdict.action}")
        self._outcome(at, _VERDICT)

    def dead_letter(self, position: Position) -> None:
        """A dead-letter record, repeats included."""
        self._outcome(position, _LETTER)

    def audit(self, position: Position) -> None:
        """An audit event, by its verdict's source."""
        if position.offset < len(marks := self._marks[_place(position)]):
            marks[position.offset] |= _AUDIT

    def account(self, *, sent: int) -> Account:
        """The account; the load's numbers below `sent` were acknowledged."""
        found = Counter[int]()
        for marks in self._marks.values():
            found.update(marks)
        counts = self._counts
        distinct = _with(found, _VERDICT)
        return Account(
            inputs=_with(found, _INPUT),
            verdict_records=counts["verdicts"],
            distinct_ids=distinct,
            dead_letters=_with(found, _LETTER),
            duplicates=counts["repeats"],
            versions=tuple(sorted(self._versions)),
            policies=tuple(sorted(self._policies)),
            unscanned=counts["unscanned"],
            unpublished=sent - sum(self._numbers[:sent]),
            lost=sum(n for m, n in found.items() if m & _INPUT and not m & (_VERDICT | _LETTER)),
            both=_with(found, _VERDICT | _LETTER),
            after_dedupe=self._passed - distinct,
            misnamed=counts["misnamed"],
            misjudged=sum(n for m, n in found.items() if _misjudged(m)),
            unproved=counts["unproved"],
            unaudited=sum(n for m, n in found.items() if m & _VERDICT and not m & _AUDIT),
            strangers=counts["strangers"],
            contradicted=counts["contradicted"],
        )

    def _outcome(self, position: Position, mark: int) -> None:
        marks = self._marks[_place(position)]
        if position.offset >= len(marks) or not marks[position.offset]:
            self._counts["strangers"] += 1
        else:
            self._counts["repeats"] += bool(marks[position.offset] & mark)
            marks[position.offset] |= mark

    def _compare(self, position: Position, decision: str) -> None:
        """First wins: a repeat that decides otherwise is a contradiction."""
        code = self._code(decision)
        first = self._actions[_place(position)]
        if position.offset < len(first) and first[position.offset]:
            self._counts["contradicted"] += first[position.offset] != code
        else:
            _put(first, position.offset, code)

    def _code(self, decision: str) -> int:
        return self._decisions.setdefault(decision, len(self._decisions) + 1)


def _place(position: Position) -> tuple[str, int]:
    return position.topic, position.partition


def _put(marks: bytearray, index: int, mark: int) -> None:
    if index >= len(marks):
        marks.extend(bytes(index + 1 - len(marks)))
    marks[index] |= mark


def _with(found: Counter[int], mark: int) -> int:
    return sum(count for marks, count in found.items() if marks & mark == mark)


def _misjudged(mark: int) -> bool:
    """A malformed input with a verdict, or a sound one with a dead letter."""
    if not mark & _INPUT:
        return False
    return bool(mark & _VERDICT if mark & _MALFORMED else mark & _LETTER)


def _unproved(verdict: Verdict) -> bool:
    """It claims to be scored where no guard, or not the whole text, was."""
    scored = verdict.status is Status.SCORED
    return scored and not (verdict.guards and verdict.scores and verdict.coverage.complete)
