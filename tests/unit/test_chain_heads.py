"""Chain heads as records: where a chain begins, and heads that an earlier release signed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline import audit_check, chain_heads, codec, schema_check
from pipeline.adapters.registry import Registry
from pipeline.chain import NOWHERE, Chain, Tip
from pipeline.resources import shipped
from pipeline.settings import load
from pipeline.signing import Checker, Signer, create_key
from tests.support import golden_records as golden

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD_ID = 6


def _keys(folder: Path) -> tuple[Signer, Checker]:
    public, _ = create_key(folder / "key.pem")
    (folder / "public.pem").write_text(public)
    return Signer.load(folder / "key.pem"), Checker.load(folder / "public.pem")


def _earlier() -> codec.Schemas:
    """The schemas as the release had them whose heads do not say where a chain begins."""
    schemas = codec.load_schemas(shipped("schemas"))
    schemas.by_name[codec.CHAIN_HEAD] = schemas.by_id[OLD_ID]
    schemas.use_id(codec.CHAIN_HEAD, OLD_ID)
    return schemas


def test_a_head_says_where_its_chain_begins(schemas: codec.Schemas) -> None:
    """Its first batch lies side by side, so its last event tells of the first."""
    growing = Chain("w/0", worker_id="w", topic="audit", partition=0)
    assert growing.head.first_offset == NOWHERE
    growing.confirm(Tip(sequence=9, hash=b"h"), 109)
    growing.confirm(Tip(sequence=19, hash=b"i"), 250)
    assert growing.head.first_offset == 100
    value = chain_heads.encode(growing.head, AT, None, schemas)
    assert chain_heads.decode(value, schemas).head == growing.head


def test_a_chain_that_was_acknowledged_out_of_order_does_not_say_where_it_begins() -> None:
    """What came first may not have been its first batch."""
    growing = Chain("w/0", worker_id="w", topic="audit", partition=0)
    growing.confirm(Tip(sequence=19, hash=b"i"), 250)
    growing.confirm(Tip(sequence=9, hash=b"h"), 109)
    assert (growing.open, growing.head.first_offset) == (False, NOWHERE)


def test_the_place_of_the_first_event_is_signed(tmp_path: Path, schemas: codec.Schemas) -> None:
    """Changed, the signature is worth nothing."""
    signer, checker = _keys(tmp_path)
    value = chain_heads.encode(replace(golden.HEAD, first_offset=7), AT, signer, schemas)
    found = chain_heads.decode(value, schemas)
    assert (found.head.first_offset, chain_heads.is_signed(found, [checker])) == (7, True)
    record = codec.read(value, codec.CHAIN_HEAD, schemas)
    forged = codec.write(record | {"first_offset": 8}, codec.CHAIN_HEAD, schemas)
    assert not chain_heads.is_signed(chain_heads.decode(forged, schemas), [checker])


def test_a_head_that_an_earlier_release_signed_stays_signed(
    tmp_path: Path, schemas: codec.Schemas
) -> None:
    """Its signature is over the bytes that it wrote, without the field that came later."""
    signer, checker = _keys(tmp_path)
    value = chain_heads.encode(golden.HEAD, AT, signer, _earlier())
    assert codec.frame_id(value) == OLD_ID
    found = chain_heads.decode(value, schemas)
    assert (found.head, found.at, found.signer) == (golden.HEAD, AT, signer.name)
    assert found.head.first_offset == NOWHERE
    assert chain_heads.is_signed(found, [checker])


async def test_heads_under_the_id_that_a_registry_gave_the_earlier_schema_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The registry knows both schemas; only the later one is written."""
    now = schema_check.texts(shipped("schemas"))
    released = schema_check.texts(shipped("schemas") / "released")
    ids = {text: 200 + number for number, text in enumerate(released.values())}
    ids |= {text: 100 + number for number, text in enumerate(now.values())}

    async def lookup(self: Registry, subject: str, schema: str) -> int | None:
        return ids.get(schema)

    async def taken(self: Registry, schema_id: int) -> bool:
        return False

    monkeypatch.setattr(Registry, "lookup", lookup)
    monkeypatch.setattr(Registry, "taken", taken)
    schemas = await audit_check._schemas(load({"registry": {"url": "http://registry"}}))
    assert schemas.ids[codec.CHAIN_HEAD] == ids[now[codec.CHAIN_HEAD]]
    old = _earlier()
    old.use_id(codec.CHAIN_HEAD, ids[released[codec.CHAIN_HEAD]])
    value = chain_heads.encode(golden.HEAD, AT, None, old)
    assert chain_heads.decode(value, schemas).head == golden.HEAD
