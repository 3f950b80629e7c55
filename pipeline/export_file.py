"""Rows into a file: JSON lines or Parquet, whole at the end or not there at all.

Parquet is written in row groups, so that memory stays flat however long the
export. The file has a temporary name beside its own until it is complete.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from pipeline.audit_rows import COLUMNS, Column
from pipeline.errors import Misconfigured, SluiceError

GROUP_ROWS: Final = 8192
GROUP_BYTES: Final = 16 * 1024 * 1024
_SUFFIXES: Final = (".parquet", ".jsonl")

Row = Mapping[str, Any]


class Sink(Protocol):
    """Where rows go."""

    def add(self, row: Row) -> None:
        """Take one more row; raises OSError."""

    def close(self) -> None:
        """Write what is left; raises OSError."""


@contextmanager
def written(path: Path, *, force: bool, private: bool) -> Iterator[Sink]:
    """A sink whose file takes its name when the block ends well; otherwise nothing is left.

    `private`: only its owner may read it. Raises Misconfigured for a path that
    cannot be used, and SluiceError where the disk gives out.
    """
    _check(path, force=force)
    half = path.with_name(f".{path.name}.half-{os.getpid()}")
    try:
        _touch(half, private=private)
        sink = _Told(_sink(half, path.suffix), path)
        try:
            yield sink
        finally:
            sink.close()
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _check(path: Path, *, force: bool) -> None:
    if path.suffix not in _SUFFIXES:
        raise Misconfigured(
            f"{path} has no known format", remedy=f"Name it {' or '.join(_SUFFIXES)}"
        )
    if path.is_dir():
        raise Misconfigured(f"{path} is a folder", remedy="Name a file in it")
    if path.exists() and not force:
        raise Misconfigured(f"{path} exists already", remedy="Add --force, or choose another name")
    if path.suffix == ".parquet":
        _arrow()


def _touch(path: Path, *, private: bool) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666))
    except OSError as error:
        raise Misconfigured(
            f"{path.parent} cannot be written ({error.strerror})",
            remedy="Make the folder, or choose another one",
        ) from None


def _failed(path: Path, error: OSError) -> SluiceError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return SluiceError(
        f"{path} could not be written ({error.strerror or type(error).__name__}); nothing is left",
        remedy="Make room, or export less at a time with --from and --to"
        if full
        else "Look after the disk, then export again",
    )


class _Told:
    """A sink whose failures are told in our words, by the name that the file would get."""

    def __init__(self, sink: Sink, path: Path) -> None:
        self._sink = sink
        self._path = path

    def add(self, row: Row) -> None:
        """As the sink; raises SluiceError where the disk gives out."""
        try:
            self._sink.add(row)
        except OSError as error:
            raise _failed(self._path, error) from error

    def close(self) -> None:
        """As the sink; raises SluiceError where the disk gives out."""
        try:
            self._sink.close()
        except OSError as error:
            raise _failed(self._path, error) from error


def _sink(half: Path, suffix: str) -> Sink:
    return _Parquet(half) if suffix == ".parquet" else _JsonLines(half)


class _JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=1024 * 1024)

    def add(self, row: Row) -> None:
        """Write a row."""
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))

    def close(self) -> None:
        """Flush to the disk."""
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())


class _Parquet:
    """Row groups of bounded size, compressed."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        self._schema = _schema()
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Row] = []
        self._size_bytes = 0

    def add(self, row: Row) -> None:
        """Hold a row until its group is full."""
        self._rows.append(row)
        self._size_bytes += len(row["content"] or "") + len(row["context"] or "")
        if len(self._rows) >= GROUP_ROWS or self._size_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last group and the footer."""
        try:
            self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        rows, self._rows, self._size_bytes = self._rows, [], 0
        if rows:
            self._writer.write_table(_arrow().Table.from_pylist(rows, schema=self._schema))


def _schema() -> Any:
    pa = _arrow()
    texts = {name: pa.string() for name in ("category", "action", "origin")}
    numbers = {name: pa.float32() for name in ("score", "threshold")}
    order = ("category", "score", "threshold", "action", "origin")
    crossed = pa.struct([(name, (texts | numbers)[name]) for name in order])
    guard = pa.struct([(name, pa.string()) for name in ("name", "version", "digest")])
    types = {
        Column.TEXT: pa.string(),
        Column.WHOLE: pa.int64(),
        Column.NUMBER: pa.float64(),
        Column.TIME: pa.timestamp("us", tz="UTC"),
        Column.SCORES: pa.map_(pa.string(), pa.float32()),
        Column.FLAGGED: pa.list_(crossed),
        Column.GUARDS: pa.list_(guard),
    }
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


def _arrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError:
        raise Misconfigured(
            "Parquet needs pyarrow, which is not installed",
            remedy="pip install 'sluice[export]', or name the file .jsonl",
        ) from None
    return pa
