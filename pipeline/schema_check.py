"""The committed schemas against the last released ones, offline.

Verdicts and audit events are read years later, by programs of any age: both
directions must work (FULL). Inputs must still be understood (BACKWARD). Every
enum falls back to UNKNOWN, because a reader turns a symbol that it does not
know into the default, and a permissive default would let messages through.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import Misconfigured

BACKWARD: Final = "BACKWARD"
FULL: Final = "FULL"
RULES: Final[Mapping[str, str]] = {
    "prompt.v1.avsc": BACKWARD,
    "completion.v1.avsc": BACKWARD,
    "verdict.v1.avsc": FULL,
    "audit.v1.avsc": FULL,
    "policy.v1.avsc": FULL,
    "chain-head.v1.avsc": FULL,
}
"""How each schema may change from the one released before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFinding:
    """One check of one schema; `ok` is None where it could not be made."""

    schema: str
    check: str
    ok: bool | None
    detail: str


def check(folder: Path) -> list[SchemaFinding]:
    """Every check of the schemas in a folder against its `released` folder.

    Raises Misconfigured when a file is missing or is no JSON.
    """
    now, before = texts(folder), texts(folder / "released")
    found: list[SchemaFinding] = []
    for name, rule in RULES.items():
        found += _compatible(name, rule, now[name], before[name])
        found.append(_enums(name, json.loads(now[name])))
    return found


def texts(folder: Path) -> dict[str, str]:
    """Each schema as JSON that stands alone: what another schema names is put in."""
    try:
        documents = {name: json.loads((folder / name).read_text()) for name in RULES}
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"the schemas in {folder} cannot be read ({error})",
            remedy="Restore the schemas folder of this release",
        ) from error
    named = {f"{each['namespace']}.{each['name']}": each for each in documents.values()}
    return {name: json.dumps(_alone(each, named)) for name, each in documents.items()}


def _alone(document: dict[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the first mention of each other record replaced by its definition."""
    left = dict(named)

    def field(each: dict[str, Any]) -> dict[str, Any]:
        kind = each["type"]
        return {**each, "type": left.pop(kind)} if isinstance(kind, str) and kind in left else each

    return {**document, "fields": [field(each) for each in document["fields"]]}


def _compatible(name: str, rule: str, now: str, before: str) -> Iterator[SchemaFinding]:
    yield _reads(name, "new reads released", reader=now, writer=before)
    if rule == FULL:
        yield _reads(name, "released reads new", reader=before, writer=now)


def _reads(name: str, what: str, *, reader: str, writer: str) -> SchemaFinding:
    """Whether one schema can read what another wrote, as Apache Avro decides it."""
    try:
        import avro.compatibility
        import avro.schema
    except ImportError:
        detail = "not checked: needs Apache avro (pip install 'sluice[dev]')"
        return SchemaFinding(schema=name, check=what, ok=None, detail=detail)
    result = avro.compatibility.ReaderWriterCompatibilityChecker().get_compatibility(
        reader=avro.schema.parse(reader), writer=avro.schema.parse(writer)
    )
    ok = result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible
    places = ", ".join(sorted(result.locations))
    said = "; ".join(sorted(result.messages))
    detail = "" if ok else f"{said} at {places}"
    return SchemaFinding(schema=name, check=what, ok=ok, detail=detail)


def _enums(name: str, document: Any) -> SchemaFinding:
    wrong = [each["name"] for each in _enums_in(document) if each.get("default") != "UNKNOWN"]
    detail = f"not so: {', '.join(wrong)}" if wrong else ""
    return SchemaFinding(schema=name, check="enums default to UNKNOWN", ok=not wrong, detail=detail)


def _enums_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == "enum":
            yield node
        for value in node.values():
            yield from _enums_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from _enums_in(value)
