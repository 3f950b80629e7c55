"""Specification of the schemas: safe defaults, documented, compatible with the released."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from pipeline.chain import ChainState
from pipeline.codec import AUDIT, CHAIN_HEAD, COMPLETION, POLICY, PROMPT, VERDICT
from pipeline.events import Action, Kind, Retention, Status
from pipeline.resources import shipped

NAMES = (PROMPT, COMPLETION, VERDICT, AUDIT, POLICY, CHAIN_HEAD)
every_schema = pytest.mark.parametrize("name", NAMES)
every_input = pytest.mark.parametrize("name", [PROMPT, COMPLETION])
every_output = pytest.mark.parametrize("name", [VERDICT, AUDIT, POLICY, CHAIN_HEAD])


def _load(*parts: str) -> Any:
    return json.loads(shipped("schemas", *parts).read_text())


def _whole(name: str, *folder: str) -> Any:
    """A schema that stands alone: the audit event has the verdict written into it."""
    schema = _load(*folder, name)
    if name == AUDIT:
        verdict = next(field for field in schema["fields"] if field["name"] == "verdict")
        verdict["type"] = _load(*folder, VERDICT)
    return schema


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every dictionary in a schema: types and fields."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _nodes(value)


def _reads(reader: Any, writer: Any) -> bool:
    """True when a reader of one schema can read what the other wrote."""
    parsed = [avro.schema.parse(json.dumps(schema)) for schema in (reader, writer)]
    result = ReaderWriterCompatibilityChecker().get_compatibility(*parsed)
    return bool(result.compatibility is SchemaCompatibilityType.compatible)


def _enums() -> list[dict[str, Any]]:
    return [node for name in NAMES for node in _nodes(_load(name)) if node.get("type") == "enum"]


def test_every_enum_defaults_to_unknown() -> None:
    """An old reader turns a new symbol into UNKNOWN, which fails closed."""
    named = ["Action", "ChainState", "Kind", "PolicyRecordKind", "Retention", "Status"]
    assert sorted(enum["name"] for enum in _enums()) == named
    for enum in _enums():
        assert enum["default"] == enum["symbols"][0] == "UNKNOWN", enum["name"]


@pytest.mark.parametrize("python", [Action, ChainState, Status, Retention])
def test_enums_have_the_symbols_of_their_python_enums(python: type[StrEnum]) -> None:
    """No symbol exists on one side only, and their order is the same."""
    (enum,) = (enum for enum in _enums() if enum["name"] == python.__name__)
    assert enum["symbols"] == [symbol.value for symbol in python]


def test_kind_has_the_symbols_of_its_python_enum_and_unknown() -> None:
    """We never write a kind UNKNOWN: the topic says which kind it is."""
    (enum,) = (enum for enum in _enums() if enum["name"] == "Kind")
    assert enum["symbols"] == ["UNKNOWN", *(kind.value for kind in Kind)]


@every_schema
def test_every_record_enum_and_field_has_a_doc(name: str) -> None:
    """A reader of the schema alone learns what everything means."""
    named = [node for node in _nodes(_load(name)) if "name" in node]
    assert len(named) > 5
    assert [node["name"] for node in named if not node.get("doc", "").strip()] == []


@every_schema
def test_times_are_micros_and_unions_begin_with_null(name: str) -> None:
    """Optional fields default to null; every time is timestamp-micros."""
    for node in _nodes(_load(name)):
        if isinstance(node.get("type"), list):
            assert node["type"][0] == "null"
            assert node["default"] is None
        if node.get("name", "").endswith("_at"):
            assert "timestamp-micros" in json.dumps(node["type"])


@every_output
def test_outputs_are_fully_compatible_with_the_released(name: str) -> None:
    """Old applications read new verdicts, and new tools read old ones."""
    current, released = _whole(name), _whole(name, "released")
    assert _reads(current, released)
    assert _reads(released, current)


@every_input
def test_inputs_are_backward_compatible_with_the_released(name: str) -> None:
    """A worker of this release reads what publishers of the released schema write."""
    assert _reads(_whole(name), _whole(name, "released"))


@every_schema
def test_the_compatibility_check_notices_a_new_required_field(name: str) -> None:
    """The check above can fail: a field without a default breaks old data."""
    released = _whole(name, "released")
    broken = copy.deepcopy(released)
    broken["fields"].append({"name": "added", "type": "string", "doc": "New."})
    assert not _reads(broken, released)


@every_output
def test_the_compatibility_check_notices_a_removed_required_field(name: str) -> None:
    """The check above can fail the other way: old readers need what they require."""
    released = _whole(name, "released")
    broken = copy.deepcopy(released)
    del broken["fields"][0]
    assert not _reads(released, broken)


def test_the_compatibility_check_looks_inside_the_verdict_of_an_audit_event() -> None:
    """A break nested in the inlined verdict is seen from the audit schema."""
    released = _whole(AUDIT, "released")
    broken = copy.deepcopy(released)
    verdict = next(field for field in broken["fields"] if field["name"] == "verdict")
    verdict["type"]["fields"].append({"name": "added", "type": "string", "doc": "New."})
    assert not _reads(broken, released)


def test_every_id_names_a_schema_and_a_subject_once() -> None:
    """Each schema has one id and one subject; a superseded one keeps its id."""
    listing = list(_load("ids.json").values())
    now = [entry for entry in listing if not entry["schema"].startswith("released/")]
    assert sorted(entry["schema"] for entry in now) == sorted(NAMES)
    assert len({entry["subject"] for entry in now}) == len(NAMES)
    assert {entry["subject"] for entry in listing} == {entry["subject"] for entry in now}


@every_schema
def test_schemas_keep_the_namespace_of_their_version(name: str) -> None:
    """A record's full name is part of the contract."""
    assert _load(name)["namespace"] == "sluice.moderation.v1"
