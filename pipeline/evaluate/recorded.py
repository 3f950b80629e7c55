"""Scores from a file: an earlier run's, or another filter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Misconfigured
from pipeline.evaluate.contenders import SCORE, Answer, Pace, Point
from pipeline.evaluate.items import Item
from pipeline.evaluate.reading import Row, content, json_lines

Key = tuple[str, str]


class Recorded:
    """A contender whose answers are all known; unknown ids are unscored."""

    def __init__(self, name: str, path: Path, answers: Mapping[Key, Answer], point: Point) -> None:
        self.name = name
        self.point = point
        self.pace = Pace(timed=False)
        self.facts: Mapping[str, str] = {"kind": "recorded scores", "file": path.name}
        self._answers = answers

    async def answer(self, data: str, items: Sequence[Item]) -> list[Answer]:
        """The recorded scores of this set's ids, or of the ids in any set."""
        missing = Answer(problem="not-recorded")
        return [
            self._answers.get((data, item.id)) or self._answers.get(("", item.id)) or missing
            for item in items
        ]


def load(spec: str, threshold: float) -> list[Recorded]:
    """Contenders in a JSONL file named as `[NAME=]PATH`, one for each `guard` in it.

    A line has `id` and `score` or `scores`; also `set`, `guard`, `flagged`.
    Raises Misconfigured naming file, line and field.
    """
    name, path = _named(spec)
    found: dict[str, dict[Key, Answer]] = {}
    for row in json_lines(path, content(path, option="--recorded")):
        guard = row.optional("guard") or path.name.split(".")[0]
        answers, key = found.setdefault(guard, {}), _key(row)
        if key in answers:
            row.wrong("id", "stands on an earlier line too", "Give each item one line")
        answers[key] = answer_of(row)
    if not found:
        raise Misconfigured(f"{path} holds no scores", remedy="Correct --recorded")
    point = Point(name="as recorded", otherwise=threshold)
    return [Recorded(name or guard, path, answers, point) for guard, answers in found.items()]


def _named(spec: str) -> tuple[str, Path]:
    """Name, which may be empty, and file; a path may hold `=` itself."""
    name, equals, rest = spec.partition("=")
    if not equals or "/" in name or Path(spec).is_file():
        return "", Path(spec)
    return name, Path(rest)


def _key(row: Row) -> Key:
    if row.fields.get("id") is None:
        row.wrong("id", "is missing", "Each line needs the id of its item")
    return row.optional("set"), row.optional("id")


def answer_of(row: Row) -> Answer:
    """Scores as another program writes them; raises Misconfigured by field."""
    scores = row.fields.get("scores")
    if scores is not None and not isinstance(scores, dict):
        row.wrong("scores", "is not an object of numbers", "Write scores by label")
    found = {str(label): _share(row, "scores", value) for label, value in (scores or {}).items()}
    if not found:
        found = {SCORE: _share(row, "score", row.fields.get("score"))}
    flagged = row.fields.get("flagged")
    said = flagged.values() if isinstance(flagged, dict) else (flagged,)
    if not all(one is None or isinstance(one, bool) for one in said):
        row.wrong("flagged", "is neither true nor false", "Correct it, or leave it out")
    return Answer(scores=found, flagged=flagged)


def _share(row: Row, name: str, value: Any) -> float:
    number = value if isinstance(value, int | float) else float("nan")
    if not 0 <= number <= 1:
        row.wrong(name, "is not a number from 0 to 1", "Scale the scores to 0..1")
    return float(number)
