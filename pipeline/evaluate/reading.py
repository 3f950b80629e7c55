"""Files as rows with their place: JSON, JSON lines, CSV, plain or compressed.

A wrong file is told by file, line and field, never by its content.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson

from pipeline.errors import Misconfigured

_TRUE: Final = frozenset({"1", "1.0", "true", "yes", "unsafe", "harmful", "malicious", "toxic"})
_FALSE: Final = frozenset({"0", "0.0", "false", "no", "safe", "harmless", "benign"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One record of a file and where it stands, as `file:line` or `file:[index]`."""

    where: str
    number: int
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field that must be text with something in it; raises Misconfigured."""
        value = self._required(name)
        if not isinstance(value, str):
            self.wrong(name, f"is {_kind(value)}, not text", "Correct the file")
        if not value.strip():
            self.wrong(name, "is empty", "Remove the line, or map the right field with --column")
        return value

    def optional(self, name: str) -> str:
        """A field as text, or `""` where it is missing or null."""
        value = self.fields.get(name)
        return "" if value is None else str(value)

    def flag(self, name: str) -> bool:
        """A field that must say yes or no in one of the usual ways."""
        found = self.maybe(name)
        if found is None:
            self.wrong(name, "is missing", _LABEL_REMEDY)
        return found

    def maybe(self, name: str) -> bool | None:
        """As `flag`, but None where the field is missing, null or empty."""
        value = self.fields.get(name)
        if value is None or value == "":
            return None
        said = str(value).strip().lower()
        if said in _TRUE:
            return True
        if said in _FALSE:
            return False
        return self.wrong(name, "is neither a yes nor a no", _LABEL_REMEDY)

    def wrong(self, name: str, problem: str, remedy: str) -> NoReturn:
        """Raise Misconfigured about a field of this row."""
        raise Misconfigured(f"{self.where}: field {name!r} {problem}", remedy=remedy)

    def _required(self, name: str) -> Any:
        if name not in self.fields:
            self.wrong(name, f"is missing (found: {told(self.fields)})", _FORMAT_REMEDY)
        return self.fields[name]


def told(names: Iterable[object]) -> str:
    """Fields as an error may say them: by name, or only how many where one may be a text.

    A file without a header has the first item's text where the names should be.
    """
    found = [str(name) for name in names if name != ""]
    if all(_NAME.fullmatch(name) for name in found):
        return f"the fields {', '.join(found[:12])}" if found else "no fields"
    return f"{len(found)} fields whose names look like text, as without a header"


_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
_LABEL_REMEDY: Final = "Write 1 or 0, true or false, unsafe or safe, or map it with --column"
_FORMAT_REMEDY: Final = "Name the file's format as FORMAT:PATH, or map the field with --column"


def content(path: Path, *, option: str = "--data") -> bytes:
    """A file's bytes, decompressed by its name; raises Misconfigured, naming the option."""
    try:
        raw = path.read_bytes()
        match path.suffix:
            case ".gz":
                return gzip.decompress(raw)
            case ".xz":
                return lzma.decompress(raw)
            case _:
                return raw
    except OSError as error:
        reason = error.strerror or "not a gzip file"
        raise Misconfigured(
            f"{path} cannot be read ({reason})", remedy=f"Correct {option}"
        ) from error
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise Misconfigured(
            f"{path} is not a whole compressed file", remedy="Get it again"
        ) from error


def begins_with(raw: bytes) -> bytes:
    """The first byte that is no space, which tells JSON from CSV."""
    return raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def json_rows(path: Path, raw: bytes) -> Iterator[Row]:
    """The objects of one JSON array."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Misconfigured(
            f"{path}:{error.lineno}: this is not JSON (column {error.colno})",
            remedy="Give Meta's file as distributed, or name another format",
        ) from None
    if not isinstance(found, list):
        raise Misconfigured(f"{path}: this is {_kind(found)}, not a list", remedy=_FORMAT_REMEDY)
    for number, fields in enumerate(found):
        yield _row(f"{path}:[{number}]", number, fields)


def json_lines(path: Path, raw: bytes) -> Iterator[Row]:
    """One object per line; empty lines are skipped."""
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise Misconfigured(
                f"{path}:{number}: this is not JSON (character {error.pos + 1})",
                remedy="Write one JSON object a line, or name another format as FORMAT:PATH",
            ) from None
        yield _row(f"{path}:{number}", number, fields)


def csv_rows(path: Path, raw: bytes) -> Iterator[Row]:
    """The rows under a CSV header; a row's place is the line that it begins on."""
    header, rows = _opened(path, raw)
    while True:
        begins = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise Misconfigured(
                f"{path}:{begins}: this is not CSV ({error})", remedy=_QUOTE
            ) from None
        if not row:
            continue
        if len(row) != len(header):
            raise Misconfigured(
                f"{path}:{begins}: {len(row)} cells, but the header has {len(header)}",
                remedy=_QUOTE,
            )
        yield Row(
            where=f"{path}:{begins}", number=begins, fields=dict(zip(header, row, strict=True))
        )


_QUOTE: Final = 'Put cells with commas, quotes or line breaks in "quotes"'


def csv_header(path: Path, raw: bytes) -> tuple[str, ...]:
    """The names in a CSV file's first row; raises Misconfigured."""
    return tuple(_opened(path, raw)[0])


def _opened(path: Path, raw: bytes) -> tuple[list[str], Any]:
    """A CSV file's header, and the reader that stands behind it."""
    if begins_with(raw) == b"{":
        raise Misconfigured(
            f"{path}: this is JSON, not CSV",
            remedy="Give the CSV file as distributed, or name it jsonl:PATH and use --column",
        )
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(io.StringIO(_decoded(path, raw), newline=""), strict=True)
    try:
        return next(rows, []), rows
    except csv.Error as error:
        raise Misconfigured(f"{path}:1: this is not CSV ({error})", remedy=_QUOTE) from None


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Misconfigured(
            f"{path}:{line}: this is not UTF-8", remedy="Convert the file to UTF-8"
        ) from None


def _row(where: str, number: int, fields: Any) -> Row:
    if not isinstance(fields, dict):
        raise Misconfigured(
            f"{where}: this is {_kind(fields)}, not an object", remedy=_FORMAT_REMEDY
        )
    return Row(where=where, number=number, fields=fields)


def _kind(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "str": "text", "NoneType": "null"}
    return names.get(type(value).__name__, "a number")
