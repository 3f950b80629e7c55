"""Frames written by the first release must decode for ever."""

from __future__ import annotations

import pytest

from pipeline import chain, chain_heads, codec
from pipeline.events import Kind
from tests.support import golden_records as golden


@pytest.mark.parametrize(
    ("file", "expected"),
    [("prompt.v1.bin", golden.PROMPT), ("completion.v1.bin", golden.COMPLETION)],
)
def test_an_old_input_decodes(file: str, expected: object, schemas: codec.Schemas) -> None:
    """What a publisher of the first release wrote is still the same message."""
    kind = Kind.PROMPT if file.startswith("prompt") else Kind.COMPLETION
    assert codec.decode_avro((golden.FOLDER / file).read_bytes(), kind, schemas) == expected


def test_an_old_verdict_decodes(schemas: codec.Schemas) -> None:
    """A verdict of the first release is still the same verdict."""
    value = (golden.FOLDER / "verdict.v1.bin").read_bytes()
    assert codec.decode_verdict(value, schemas) == golden.VERDICT


def test_an_old_audit_event_decodes(schemas: codec.Schemas) -> None:
    """An audit event of the first release is still the same: replay depends on it."""
    value = (golden.FOLDER / "audit.v1.bin").read_bytes()
    assert codec.decode_audit(value, schemas) == golden.AUDIT


def test_a_linked_audit_event_is_the_same_for_ever(schemas: codec.Schemas) -> None:
    """Byte for byte: hashes are taken of what is written, so no byte may ever differ."""
    value = (golden.FOLDER / "audit-linked.v1.bin").read_bytes()
    assert codec.decode_audit(value, schemas) == golden.LINKED
    assert codec.link(value, schemas) == golden.LINKED.chain
    assert codec.body(codec.encode_audit(golden.LINKED, schemas)) == codec.body(value)
    hashed = chain.digest(codec.body(value)).hex()
    assert hashed == "818242719a875780d0bf496f1eafc379df89a6e849eb258ca159958f2a508804"


@pytest.mark.parametrize(
    ("file", "expected"),
    [("chain-head.v1.bin", golden.HEAD), ("chain-head-begun.v1.bin", golden.BEGUN)],
)
def test_a_chain_head_is_the_same_for_ever(
    file: str, expected: object, schemas: codec.Schemas
) -> None:
    """Its signature is over these bytes, those of the first release before it said its start."""
    value = (golden.FOLDER / file).read_bytes()
    found = chain_heads.decode(value, schemas)
    assert (found.head, found.signed) == (expected, codec.body(value))


@pytest.mark.parametrize(
    ("file", "schema_id"),
    [("prompt.v1.bin", 1), ("completion.v1.bin", 2), ("verdict.v1.bin", 3), ("audit.v1.bin", 4)],
)
def test_the_ids_of_the_first_release_stay(file: str, schema_id: int) -> None:
    """Ids 1 to 4 belong to the first release's schemas and are never given away."""
    assert codec.frame_id((golden.FOLDER / file).read_bytes()) == schema_id


def test_every_golden_frame_is_checked() -> None:
    """No frame lies in the folder that no test decodes."""
    assert sorted(path.name for path in golden.FOLDER.glob("*.bin")) == sorted(golden.frames())
