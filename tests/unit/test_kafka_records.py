"""A header whose name is no UTF-8 costs nobody a record."""

from __future__ import annotations

import hashlib
import inspect
import struct

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record._crc32c import crc
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

import pipeline.adapters.kafka  # noqa: F401 - installs it
from pipeline.adapters.kafka_records import Records

NONE, ZSTD = 0, 4
CRC_AT, CRC_FROM = 17, 21


def batch(offset: int, names: list[bytes], *, codec: int = NONE) -> bytes:
    """A batch of a record a name, each with one header of that name (four bytes)."""
    built = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 100_000)
    if codec != NONE:
        built = _Forged(2, codec, 0, -1, -1, -1, 100_000)
        built.names = names
    for index in range(len(names)):
        marked = [(f"H{index:03}", b"x")]
        built.append(index, timestamp=1, key=None, value=b"v%d" % index, headers=marked)
    raw = bytearray(built.build())
    if codec == NONE:
        for index, name in enumerate(names):
            raw = bytearray(raw.replace(b"H%03d" % index, name))
    raw[:8] = struct.pack(">q", offset)
    raw[CRC_AT:CRC_FROM] = struct.pack(">I", crc(bytes(raw[CRC_FROM:])))
    return bytes(raw)


class _Forged:
    """A builder whose records are compressed after their headers were renamed."""

    names: list[bytes]

    def __init__(self, *given: int) -> None:
        from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

        self._builder = _DefaultRecordBatchBuilderPy(*given)  # type: ignore[arg-type]

    def append(self, *args: object, **options: object) -> None:
        """As the builder's own."""
        self._builder.append(*args, **options)  # type: ignore[arg-type]

    def build(self) -> bytearray:
        """Rename, then compress."""
        for index, name in enumerate(self.names):
            place = self._builder._buffer.find(b"H%03d" % index)
            self._builder._buffer[place : place + 4] = name
        return self._builder.build()


def read(data: bytes) -> list[tuple[int, bytes | None, str]]:
    """Offset, value and the header's name of every record."""
    records, found = Records(data), []
    while records.has_next():
        each = records.next_batch()
        assert each.validate_crc()
        found += [(r.offset, r.value, r.headers[0][0]) for r in each]
    assert records.next_batch() is None
    return found


def test_it_stands_where_records_are_made() -> None:
    """In the pinned release; another's code must be read again."""
    assert fetcher.MemoryRecords is Records
    source = inspect.getsource(_DefaultRecordBatchPy._read_msg)
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == "0997ab7a58505c93"
    assert inspect.getsource(fetcher.Fetcher).count("MemoryRecords(") == 1


@pytest.mark.parametrize("codec", [NONE, ZSTD])
def test_an_odd_name_is_escaped_and_its_neighbours_are_whole(codec: int) -> None:
    """In the middle of a batch, among others, compressed or not."""
    data = batch(5, [b"fine"]) + batch(6, [b"good", b"\xff\xfe-x", b"next"], codec=codec)
    data += batch(9, [b"last"])
    assert read(data) == [
        (5, b"v0", "fine"),
        (6, b"v0", "good"),
        (7, b"v1", "\\xff\\xfe-x"),
        (8, b"v2", "next"),
        (9, b"v0", "last"),
    ]


def test_ordinary_batches_are_read_as_ever() -> None:
    """What aiokafka says of a batch is handed through."""
    data = batch(3, [b"one1", b"two2"]) + batch(5, [b"six6"])
    theirs, ours = MemoryRecords(data), Records(data)
    assert ours.size_in_bytes() == theirs.size_in_bytes()
    for _ in range(2):
        a, b = theirs.next_batch(), ours.next_batch()
        for name in ("base_offset", "next_offset", "is_control_batch", "producer_id", "magic"):
            assert getattr(a, name) == getattr(b, name)
        assert [r.offset for r in a] == [r.offset for r in b]
    assert not ours.has_next()
