"""Reading the audit topic: what is pure about it."""

from __future__ import annotations

import pytest

from pipeline import codec
from pipeline.adapters.kafka import Record, Slice
from pipeline.audit_log import cut, decoded, parse_offsets
from pipeline.errors import Misconfigured
from tests.support.golden_records import AUDIT


def _record(value: bytes | None) -> Record:
    return Record(
        topic="audit", partition=1, offset=7, timestamp_ms=5, key=None, value=value, headers=()
    )


def test_an_entry_keeps_place_bytes_and_event(schemas: codec.Schemas) -> None:
    """What was read can be found again."""
    frame = codec.encode_audit(AUDIT, schemas)
    entry = decoded(_record(frame), schemas)
    assert entry is not None
    assert (str(entry.at), entry.timestamp_ms, entry.frame) == ("audit:1:7", 5, frame)
    assert entry.event == codec.decode_audit(frame, schemas)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\x00\x00\x00\x00\x04\xff"])
def test_a_foreign_record_is_no_entry(schemas: codec.Schemas, value: bytes | None) -> None:
    """It is passed over, not raised."""
    assert decoded(_record(value), schemas) is None


@pytest.mark.parametrize(
    ("text", "start", "end"), [("0:5-9", 5, 9), ("0:-9", 0, 9), ("0:5-", 5, 2**62)]
)
def test_offsets_are_read(text: str, start: int, end: int) -> None:
    """Either end may be left out."""
    assert parse_offsets(text) == Slice(partition=0, start=start, end=end)


@pytest.mark.parametrize("text", ["", "0", "0:9-5", "0:5-5", "a:1-2", "-1:0-4", "0:1-2-3"])
def test_what_names_no_offsets_is_refused(text: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(Misconfigured):
        parse_offsets(text)


def test_offsets_are_cut_to_what_there_is() -> None:
    """Nothing is read before the start or past the end of a partition."""
    found = [Slice(partition=0, start=10, end=20), Slice(partition=1, start=0, end=5)]
    assert list(cut(found, [parse_offsets("0:0-15"), parse_offsets("1:9-12")])) == [
        Slice(partition=0, start=10, end=15),
        Slice(partition=1, start=9, end=9),
    ]


def test_a_partition_that_is_not_there_is_named() -> None:
    """The error says which there are."""
    with pytest.raises(Misconfigured, match="no partition 7"):
        list(cut([Slice(partition=0, start=0, end=1)], [parse_offsets("7:0-1")]))
