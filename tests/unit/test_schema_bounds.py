"""Specification of which writer schemas are refused: those that bound no reading."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest

from pipeline import codec
from pipeline.errors import Reason, Rejected
from pipeline.events import Kind
from pipeline.resources import shipped
from pipeline.schema_bounds import refuse_endless


def prompt_with(extra: Any) -> str:
    """A prompt's schema with one more field, before the others."""
    fields = [{"name": "extra", "type": extra}]
    fields += [{"name": name, "type": "string"} for name in ("message_id", "text")]
    return json.dumps(
        {"type": "record", "name": "Prompt", "namespace": "sluice.moderation.v1", "fields": fields}
    )


def doubling(levels: int, core: Any) -> dict[str, Any]:
    """Records that each hold the one before twice: 2 to the power of `levels` cores."""
    inner = {"type": "record", "name": "R0", "fields": core}
    for n in range(1, levels + 1):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"R{n - 1}"}]
        inner = {"type": "record", "name": f"R{n}", "fields": fields}
    return inner


def chain(length: int, before: str = "null") -> list[Any]:
    """A union of records, each of which holds the one before it, after a `before`."""
    made: list[Any] = ["int"]
    for n in range(length):
        inner = {"name": "a", "type": f"C{n - 1}" if n else "int"}
        fields = [{"name": "z", "type": before}, inner]
        made.append({"type": "record", "name": f"C{n}", "fields": fields})
    return made


def row_of(nulls: int) -> dict[str, Any]:
    """A record of one byte and many nulls."""
    fields = [{"name": f"n{n}", "type": "null"} for n in range(nulls)]
    return {"type": "record", "name": "Row", "fields": [*fields, {"name": "i", "type": "int"}]}


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
EMPTY = {"type": "record", "name": "Empty", "fields": [{"name": "a", "type": "null"}]}
ENDLESS = [
    NODE,
    {"type": "map", "values": {"type": "array", "items": ["null", NODE]}},
    ["null", "Prompt"],
    {"type": "array", "items": "null"},
    {"type": "array", "items": EMPTY},
    {"type": "array", "items": {"type": "fixed", "name": "Nothing", "size": 0}},
    doubling(14, []),
    ["null", doubling(14, [])],
    doubling(20, [{"name": "n", "type": "null"}]),
    doubling(40, []),
    {"type": "array", "items": row_of(8)},
    {"type": "array", "items": ["null", doubling(5, [])]},
    {"type": "map", "values": row_of(16)},
    chain(300),
    chain(300, before="string"),
    {**EMPTY, "fields": [{"name": "a", "type": doubling(14, [])}, *row_of(0)["fields"] * 2000]},
]
BOUNDED = [
    "null",
    {"type": "array", "items": ["null", "string"]},
    {"type": "array", "items": {"type": "array", "items": "int"}},
    {"type": "map", "values": "null"},
    {"type": "fixed", "name": "Sum", "size": 2},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "enum", "name": "Colour", "symbols": ["RED"]},
    {**EMPTY, "fields": [{"name": "a", "type": "double"}, {"name": "b", "type": "null"}]},
    doubling(12, []),
    doubling(40, [{"name": "s", "type": "string"}]),
    {"type": "array", "items": doubling(3, [{"name": "s", "type": ["null", "string"]}])},
    {"type": "array", "items": row_of(7)},
    {"type": "map", "values": row_of(15)},
    row_of(5000),
    chain(100),
]


@pytest.mark.parametrize("extra", ENDLESS)
def test_an_endless_schema_is_refused_and_its_frames_are_dead_letters(
    extra: Any, schemas: codec.Schemas
) -> None:
    """100 kB of such a frame would end the process, and again at each redelivery."""
    with pytest.raises(ValueError, match="schema 9 cannot be read safely"):
        schemas.learn(9, prompt_with(extra))
    with pytest.raises(Rejected) as caught:
        codec.decode_avro(b"\x00\x00\x00\x00\x09" + b"\x02" * 100_000, Kind.PROMPT, schemas)
    assert caught.value.reason is Reason.UNKNOWN_SCHEMA


@pytest.mark.parametrize("extra", BOUNDED)
def test_a_schema_that_spends_bytes_is_learned(extra: Any, schemas: codec.Schemas) -> None:
    """What other publishers may well add is no reason to refuse."""
    schemas.learn(9, prompt_with(extra))
    assert 9 in schemas.by_id


def test_a_type_may_be_named_again_after_its_end() -> None:
    """Using a record twice is no recursion, and its size is remembered."""
    pair = {
        "type": "record",
        "name": "Pair",
        "fields": [
            {"name": "a", "type": EMPTY},
            {"name": "b", "type": "Empty"},
            {"name": "c", "type": {"type": "array", "items": "Empty"}},
        ],
    }
    with pytest.raises(ValueError, match="no bytes"):
        refuse_endless(fastavro.parse_schema(pair, {}))
    pair["fields"] = pair["fields"][:2]
    refuse_endless(fastavro.parse_schema(pair, {}))


def test_a_schema_nested_too_deep_is_refused(schemas: codec.Schemas) -> None:
    """Depth that Python cannot walk ends in ValueError like any other bad schema."""
    text = '{"type":"array","items":' * 5000 + '"string"' + "}" * 5000
    with pytest.raises(ValueError, match="schema 9"):
        schemas.learn(9, text)


@pytest.mark.parametrize("name", [codec.PROMPT, codec.COMPLETION, codec.VERDICT, codec.AUDIT])
def test_the_shipped_schemas_are_bounded(name: str) -> None:
    """Our own schemas keep the rule."""
    refuse_endless(codec.load_schemas(shipped("schemas")).by_name[name])
