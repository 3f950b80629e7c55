"""Messages from files and stdin: text, JSON lines, CSV. A bad line says where."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import chain
from pathlib import PurePath
from typing import Any, BinaryIO, Final

import orjson

from pipeline import codec
from pipeline.dlq import printable
from pipeline.envelope import new_id
from pipeline.errors import Misconfigured, Reason, Rejected
from pipeline.events import Kind, Message

FIELDS: Final = (
    "message_id", "text", "kind", "conversation_id", "tenant", "route", "language",
    "prompt", "prompt_id", "sent_at",
)  # fmt: skip
"""What a JSON line or a CSV column may hold; only `text` is required."""

_OF_COMPLETIONS: Final = frozenset({"prompt", "prompt_id"})
_BOM: Final = b"\xef\xbb\xbf"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Format(StrEnum):
    """How an input is written; `auto` goes by the name, on stdin by the first line."""

    AUTO = "auto"
    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One line as read: its message, or why there is none; `where` is `name:line`."""

    where: str
    message: Message | None = None
    error: Rejected | None = None


@dataclass(slots=True, kw_only=True)
class Reading:
    """How to read; `ignored` collects names of fields that are not sent.

    A prompt's `prompt` and `prompt_id` are among those: only completions have
    them. `columns` maps names of CSV columns to fields; `whole` makes a text file
    one message.
    """

    kind: Kind = Kind.PROMPT
    tenant: str = ""
    format: Format = Format.AUTO
    whole: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)

    def read(self, stream: BinaryIO, name: str) -> Iterator[Read]:
        """Each message of a stream, or its problem.

        Raises Misconfigured when a CSV header has no column for the text, or
        where an open quote makes many rows of CSV one.
        """
        lines = iter([stream.read()] if self.whole else stream)
        first = next(lines, b"").removeprefix(_BOM)
        every = enumerate(chain([first], lines), start=1)
        form = self._form(name, first)
        if form is Format.CSV:
            yield from self._csv((line for _, line in every), name)
            return
        parse = self._from_json if form is Format.JSONL else self._from_text
        for number, line in every:
            if line.strip() or self.whole:
                yield _read(f"{name}:{number}", parse, line)

    def _form(self, name: str, first: bytes) -> Format:
        if self.format is not Format.AUTO:
            return self.format
        if self.whole:
            return Format.TEXT
        suffixes = {".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".csv": Format.CSV}
        by_name = suffixes.get(PurePath(name).suffix.lower())
        return by_name or (Format.JSONL if _is_record(first) else Format.TEXT)

    def _from_text(self, line: bytes) -> Message:
        text = line if self.whole else line.rstrip(b"\r\n")
        try:
            return self._message({"text": text.decode()})
        except UnicodeDecodeError as error:
            raise Rejected(
                Reason.BAD_ENCODING,
                f"the text is not UTF-8 (byte {error.start + 1})",
                remedy="Convert the file to UTF-8",
            ) from None

    def _from_json(self, line: bytes) -> Message:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            # No words of orjson's: they could quote the text.
            raise Rejected(
                Reason.BAD_JSON,
                f"this is not JSON (character {error.pos + 1})",
                remedy="Write one JSON object a line",
            ) from None
        if not isinstance(fields, dict):
            raise Rejected(
                Reason.BAD_JSON, "this is not a JSON object", remedy="Write one object a line"
            )
        return self._message(fields)

    def _csv(self, lines: Iterable[bytes], name: str) -> Iterator[Read]:
        csv.field_size_limit(2**31 - 1)  # the default refuses texts beyond 128 KiB
        rows = csv.reader((line.decode("utf-8", "surrogateescape") for line in lines), strict=True)
        try:
            header = [self.columns.get(column, column) for column in next(rows, [])]
        except csv.Error as error:
            raise Misconfigured(f"{name} is not CSV: {error}", remedy=_QUOTES) from None
        if "text" not in header:
            raise Misconfigured(
                f"{name} has no column for 'text' among: {printable(', '.join(header)[:200])}",
                remedy="Name it with --column text=COLUMN; the first line must be the header",
            )
        while True:
            first = rows.line_num + 1
            where = f"{name}:{first}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                if rows.line_num > first:  # an open quote: how many rows it took, none can say
                    raise Misconfigured(
                        f"{where}: this is not CSV up to line {rows.line_num}: {error}",
                        remedy="Close the quotes of the row that begins there",
                    ) from None
                problem = Rejected(Reason.WRONG_TYPE, f"this is not CSV: {error}", remedy=_QUOTES)
                yield Read(where=where, error=problem)
                continue
            if row:
                yield _read(where, lambda cells: self._from_row(header, cells), row)

    def _from_row(self, header: Sequence[str], row: Sequence[str]) -> Message:
        if len(row) != len(header):
            raise Rejected(
                Reason.WRONG_TYPE,
                f"there are {len(row)} cells, the header has {len(header)}",
                remedy=_QUOTES,
            )
        # An empty cell is no value, except that an empty text is one.
        cells = zip(header, row, strict=True)
        fields = {name: cell for name, cell in cells if cell or name == "text"}
        for name, cell in fields.items():
            if not cell.isprintable() and any("\udc80" <= char <= "\udcff" for char in cell):
                raise Rejected(
                    Reason.BAD_ENCODING,
                    f"the field {name!r} is not UTF-8",
                    remedy="Convert the file to UTF-8",
                )
        return self._message(dict(fields))

    def _message(self, fields: dict[str, Any]) -> Message:
        """The message of given fields, checked as the worker checks JSON."""
        given = {name: fields[name] for name in FIELDS if fields.get(name) is not None}
        self.ignored.update(fields.keys() - set(FIELDS))
        kind = _kind(given.pop("kind", self.kind))
        if kind is Kind.PROMPT:
            self.ignored.update(given.keys() & _OF_COMPLETIONS)
        if isinstance(given.get("sent_at"), str):
            given["sent_at"] = _micros(given["sent_at"])
        record = {"message_id": new_id(), "tenant": self.tenant, **given}
        try:
            value = orjson.dumps(record)
        except orjson.JSONEncodeError:  # it reads deeper than it writes
            raise Rejected(
                Reason.WRONG_TYPE,
                "a field is nested too deeply, or is not UTF-8",
                remedy="Write each field as a string",
            ) from None
        return codec.decode_json(value, kind)


_QUOTES: Final = 'Put cells with commas, quotes or line breaks in "quotes"'


def _read(where: str, parse: Callable[[Any], Message], given: Any) -> Read:
    try:
        return Read(where=where, message=parse(given))
    except Rejected as error:
        return Read(where=where, error=error)


def _is_record(line: bytes) -> bool:
    """Whether a line is a JSON object with a text, not a text in braces."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and "text" in found


def _kind(given: object) -> Kind:
    # Not Kind(given): its error would spell out whatever is nested there.
    if isinstance(given, str) and given in set(Kind):
        return Kind(given)
    raise Rejected(
        Reason.WRONG_TYPE,
        "the field 'kind' is neither prompt nor completion",
        remedy="Correct it, or leave it out and use --kind",
    )


def _micros(text: str) -> int:
    """Microseconds since the epoch of RFC 3339 or of digits; raises Rejected."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Rejected(
            Reason.BAD_TIMESTAMP,
            "the field 'sent_at' is not a time with a zone",
            remedy="Write 2026-11-23T10:15:00Z, or microseconds since 1970",
        )
    return (moment - _EPOCH) // timedelta(microseconds=1)
