"""Which formats there are, how one is told from its content, and reading a set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from pipeline.errors import Misconfigured
from pipeline.evaluate import cyberseceval, plain, public, reading
from pipeline.evaluate.items import DataSet, Head, Item
from pipeline.evaluate.reading import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to read: the mapping of columns, and whether system prompts are shown."""

    columns: Mapping[str, str]
    with_system: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way a set is distributed: how rows lie in the file and what they mean.

    `marks` are fields that tell it from the others; `heads` what it measures.
    """

    rows: Callable[[Path, bytes], Iterator[Row]]
    items: Callable[[Iterable[Row], Path, Options], Iterator[Item]]
    marks: frozenset[str]
    heads: tuple[Head, ...] = (Head.HAZARD,)
    note: str = ""


def _format(
    rows: Callable[[Path, bytes], Iterator[Row]],
    items: Callable[[Iterable[Row]], Iterator[Item]],
    marks: str,
    *heads: Head,
    note: str = "",
) -> Format:
    return Format(
        rows=rows,
        items=lambda found, _path, _options: items(found),
        marks=frozenset(marks.split()),
        heads=heads or (Head.HAZARD,),
        note=note,
    )


FORMATS: Final[Mapping[str, Format]] = {
    "cyberseceval-injection": Format(
        rows=reading.json_rows,
        items=lambda rows, _, how: cyberseceval.injection(rows, with_system=how.with_system),
        marks=frozenset({"test_case_prompt", "user_input", "injection_variant"}),
        heads=(Head.ATTACK,),
    ),
    "cyberseceval-frr": _format(
        reading.json_rows,
        cyberseceval.false_refusal,
        "mutated_prompt is_malicious",
        Head.ANY,
        note="all harmless: a flag counts as a refusal",
    ),
    "cyberseceval-interpreter": _format(
        reading.json_rows, cyberseceval.interpreter, "mutated_prompt attack_type"
    ),
    "openai-moderation": _format(
        reading.json_lines,
        public.openai_moderation,
        "prompt S H",
        note="positive when any label is; missing labels are no, and skipped by category",
    ),
    "toxicchat": _format(
        reading.csv_rows, public.toxicchat, "user_input toxicity jailbreaking", Head.HAZARD,
        Head.ATTACK,
    ),
    "xstest": _format(
        reading.csv_rows,
        public.xstest,
        "prompt type focus",
        note="unsafe contrasts are the positives",
    ),
    "harmbench": _format(
        reading.csv_rows, public.harmbench, "Behavior SemanticCategory BehaviorID"
    ),
    "jailbreakbench": Format(
        rows=reading.csv_rows,
        items=lambda rows, path, _: public.jailbreakbench(rows, path),
        marks=frozenset({"Goal", "Target", "Behavior"}),
        note="the bare goals, harmful and benign",
    ),
    "beavertails": _format(
        reading.json_lines,
        public.beavertails,
        "prompt response category is_safe",
        note="judges the answers; the question is context",
    ),
    "simplesafetytests": _format(
        reading.csv_rows, public.simplesafetytests, "harm_area category"
    ),
    "notinject": _format(
        reading.json_rows,
        public.notinject,
        "prompt word_list",
        Head.ATTACK,
        note="all harmless: a flag is a false alarm; empty prompts are left out",
    ),
    "sluice": _format(reading.json_lines, plain.training, "t y h", Head.HAZARD, Head.ATTACK),
    "jsonl": Format(
        rows=reading.json_lines,
        items=lambda rows, _, how: plain.mapped(rows, how.columns),
        marks=frozenset(),
    ),
    "csv": Format(
        rows=reading.csv_rows,
        items=lambda rows, _, how: plain.mapped(rows, how.columns),
        marks=frozenset(),
    ),
}  # fmt: skip
"""By name; detection takes the first whose marks are all there."""

_PLAIN: Final = ("jsonl", "csv")
"""The formats that --column is for."""
_LOOKED_AT: Final = 100
_SET: Final = re.compile(
    r"^(?:(?P<name>[A-Za-z0-9_-]+)=)?(?:(?P<format>[a-z-]+):)?(?P<path>.+)$", re.DOTALL
)


def load_all(given: Sequence[str], options: Options) -> list[DataSet]:
    """The sets named as `[NAME=][FORMAT:]PATH`, several paths joined by `+`.

    Raises Misconfigured naming file, line, field and remedy.
    """
    found: list[DataSet] = []
    for spec in given:
        loaded = load(spec, options)
        taken = {each.name for each in found}
        names = (f"{loaded.name}-{number}" for number in range(2, len(given) + 2))
        free = loaded.name if loaded.name not in taken else next(n for n in names if n not in taken)
        found.append(replace(loaded, name=free))
    if options.columns and not any(each.format in _PLAIN for each in found):
        raise Misconfigured(
            "--column is for jsonl and csv, and no set is read as one",
            remedy="Name the set as jsonl:PATH or csv:PATH, or leave --column out",
        )
    return found


def load(spec: str, options: Options) -> DataSet:
    """One set; see `load_all`."""
    match = _SET.match(spec)
    if match is None:
        raise Misconfigured("--data names no file", remedy="Write [NAME=][FORMAT:]PATH")
    name, wanted, path = match.group("name", "format", "path")
    paths = [path] if Path(path).is_file() else path.split("+")
    if wanted and wanted not in FORMATS:
        raise Misconfigured(
            f"--data names the format {wanted!r}, which there is not",
            remedy=f"Use one of: {', '.join(FORMATS)}",
        )
    items: list[Item] = []
    chosen = ""
    for path in map(Path, paths):
        raw = reading.content(path)
        chosen = wanted or detect(path, raw, options)
        items += FORMATS[chosen].items(FORMATS[chosen].rows(path, raw), path, options)
    if not items:
        raise Misconfigured(f"{paths[0]} holds no rows", remedy="Correct --data")
    items = list(_unique(items))
    return DataSet(
        name=name or _name(chosen, Path(paths[0])),
        format=chosen,
        items=items,
        heads=_labelled(items, FORMATS[chosen].heads),
        notes=tuple(_notes(chosen, options)),
    )


def _unique(items: Iterable[Item]) -> Iterator[Item]:
    """The items, a repeated id made its own: scores are recorded by id."""
    taken: dict[str, int] = {}
    for item in items:
        free = item.id
        while free in taken:
            taken[item.id] += 1
            free = f"{item.id}#{taken[item.id]}"
        taken[free] = 1
        yield item if free == item.id else replace(item, id=free)


def _labelled(items: Sequence[Item], heads: tuple[Head, ...]) -> tuple[Head, ...]:
    """The format's heads that the file has labels for, or else any that it has."""
    said = [head for head in Head if any(item.truth(head) is not None for item in items)]
    return tuple(head for head in heads if head in said) or tuple(said[:1])


def detect(path: Path, raw: bytes, options: Options) -> str:
    """The format that a file's records have; raises Misconfigured if none.

    Where columns are mapped it is the plain one: what a person says goes first.
    """
    start = reading.begins_with(raw)
    if start == b"[":
        rows, fallback = reading.json_rows, ""
    elif start == b"{":
        rows, fallback = reading.json_lines, "jsonl"
    else:
        rows, fallback = reading.csv_rows, "csv"
    if fallback and options.columns:
        return fallback
    fields = reading.csv_header(path, raw) if fallback == "csv" else _fields(rows(path, raw))
    for name, each in FORMATS.items():
        if each.marks and each.rows == rows and each.marks <= set(fields):
            return name
    if fallback and "text" in fields:
        return fallback
    raise Misconfigured(
        f"{path}: no known format has {reading.told(fields)}",
        remedy="Write one object a line, and map the fields with --column text=...,label=..."
        if start == b"["
        else "Name it as FORMAT:PATH, or map the fields with --column text=...,label=...",
    )


def _fields(rows: Iterator[Row]) -> tuple[str, ...]:
    """Those of the first rows together: one row may leave out what it has no value for."""
    return tuple(dict.fromkeys(name for row in islice(rows, _LOOKED_AT) for name in row.fields))


def _name(chosen: str, path: Path) -> str:
    """A public set goes by its format's name, one's own by its file's."""
    if chosen not in {*_PLAIN, "sluice"}:
        return chosen
    return re.sub(r"[^A-Za-z0-9_-]", "-", path.name.split(".")[0]) or chosen


def _notes(chosen: str, options: Options) -> Iterator[str]:
    if FORMATS[chosen].note:
        yield FORMATS[chosen].note
    if chosen == "cyberseceval-injection":
        shown = "before the user's words" if options.with_system else "not shown"
        yield f"system prompt {shown}"
