r"""Records as they are fetched, whatever their headers are called.

aiokafka's parser takes a header's name for UTF-8 and raises where it is not, at
that record for ever: a consumer cannot pass it, and so one message of one
publisher would end every worker that is given its partition. Here such a batch
is read again by aiokafka's parser in Python, with the odd bytes of a name as
`\xff`. All others are read as ever.

`install` puts it where the pinned release makes its records;
`tests/unit/test_kafka_records.py` fails when that place changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_BEFORE_LENGTH: Final = 8
_BEFORE_BATCH: Final = 12
"""A batch begins with its offset and, in four bytes, the length of what follows (KIP-98)."""


def install() -> None:
    """Let every consumer of this process read its records leniently."""
    fetcher.MemoryRecords = Records


class Records:
    """aiokafka's `MemoryRecords`, whose batches never fail for a header's name."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._records = MemoryRecords(data)

    def size_in_bytes(self) -> int:
        """The size of what was fetched."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        """The next batch, or None; raises CorruptRecordException."""
        batch, begins = self._records.next_batch(), self._at
        if batch is None:
            return None
        length = int.from_bytes(self._data[begins + _BEFORE_LENGTH : begins + _BEFORE_BATCH], "big")
        self._at += _BEFORE_BATCH + length
        return _Batch(batch, self._data, begins, self._at)


class _Batch:
    """A batch that is parsed again, in Python, from where a header's name is no UTF-8."""

    def __init__(self, batch: Any, data: bytes, begins: int, ends: int) -> None:
        self._batch = batch
        self._data = data
        self._begins = begins
        self._ends = ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                read += 1
                yield record
        except UnicodeDecodeError:
            yield from islice(self._leniently(), read, None)

    def _leniently(self) -> Iterator[Any]:
        batch = _DefaultRecordBatchPy(self._data[self._begins : self._ends])
        records: Iterator[Any] = iter(batch)  # which decompresses
        batch._buffer = _Lenient(batch._buffer)
        return records


class _Lenient(bytearray):
    """Bytes whose slices decode whatever they hold."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Lenient(found) if isinstance(at, slice) else found

    def decode(self, *_: Any, **__: Any) -> str:
        """Odd bytes as escapes, which a header's name can be written with again."""
        return super().decode("utf-8", errors="backslashreplace")
