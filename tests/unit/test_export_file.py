"""Specification of an export's file: the same rows in either format, whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import audit_rows, export_file
from pipeline.errors import Misconfigured
from pipeline.events import AuditEvent, Position
from pipeline.export_file import written
from tests.support.golden_records import AUDIT

from .strategies import audits

AT = Position(topic="audit", partition=2, offset=7)
ROW = audit_rows.row(AUDIT, at=AT, timestamp_ms=1_741_064_767_891)


def both(folder: Path) -> Iterator[Path]:
    """A name in each format."""
    return (folder / f"out{suffix}" for suffix in (".parquet", ".jsonl"))


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
def test_the_golden_event_is_a_row(tmp_path: Path, name: str) -> None:
    """Every column, in the promised order, as a reader of the file finds it."""
    path = tmp_path / name
    with written(path, force=False, private=False) as sink:
        sink.add(ROW)
    (found,) = read(path)
    assert list(found) == list(audit_rows.COLUMNS)
    assert found["verdict_id"] == "moderation.prompts.v1:3:4294967296"
    assert found["flagged"][0]["origin"] == "tenant acme"
    assert found["guards"][0]["name"] == "default"
    assert found["source_offset"] == 4294967296
    assert (found["audit_partition"], found["audit_offset"]) == (2, 7)
    assert found["content"] is None


def test_parquet_keeps_types_and_scores(tmp_path: Path) -> None:
    """Times are UTC in microseconds, scores a map of 32-bit numbers, order is kept."""
    path = tmp_path / "out.parquet"
    with written(path, force=False, private=False) as sink:
        sink.add(ROW)
    table = pyarrow.parquet.read_table(path)
    assert dict(table.column("scores").to_pylist()[0]) == {"S12": 0.75, "unsafe": 0.8125}
    assert str(table.schema.field("emitted_at").type) == "timestamp[us, tz=UTC]"
    assert table.column("emitted_at").to_pylist()[0] == AUDIT.verdict.emitted_at
    assert table.schema.names == list(audit_rows.COLUMNS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(audits, min_size=1, max_size=3))
def test_any_event_is_the_same_row_in_both_formats(
    tmp_path: Path, events: list[AuditEvent]
) -> None:
    """Whatever its ids, times and scores are."""
    rows = [audit_rows.row(event, at=AT, timestamp_ms=1) for event in events]
    for path in both(tmp_path):
        with written(path, force=True, private=False) as sink:
            for row in rows:
                sink.add(row)
    parquet, lines = (read(path) for path in both(tmp_path))
    for name in ("verdict_id", "tenant", "reason", "total_tokens", "chain_sequence", "retention"):
        assert [row[name] for row in parquet] == [row[name] for row in lines]
        assert [row[name] for row in parquet] == [row[name] for row in rows]


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows and by the size of texts: memory does not grow with the export."""
    monkeypatch.setattr(export_file, "GROUP_ROWS", 10)
    monkeypatch.setattr(export_file, "GROUP_BYTES", 1000)
    path = tmp_path / "out.parquet"
    with written(path, force=False, private=False) as sink:
        for _ in range(25):
            sink.add(ROW)
        for _ in range(4):
            sink.add({**ROW, "content": "x" * 600})
    meta = pyarrow.parquet.ParquetFile(path).metadata
    assert [meta.row_group(n).num_rows for n in range(meta.num_row_groups)] == [10, 10, 7, 2]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_nothing_is_left_of_an_export_that_failed(tmp_path: Path) -> None:
    """Neither the file nor the half one; and a file that was there stays as it was."""

    def fail(path: Path) -> None:
        with written(path, force=True, private=False) as sink:
            sink.add(ROW)
            raise RuntimeError

    for path in both(tmp_path):
        path.write_text("before")
        with pytest.raises(RuntimeError):
            fail(path)
        assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_exists_is_kept_unless_told(tmp_path: Path) -> None:
    """--force is the way to replace it, and only a complete export does."""
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    with (
        pytest.raises(Misconfigured, match="--force"),
        written(path, force=False, private=False),
    ):
        pass
    with written(path, force=True, private=False) as sink:
        assert path.read_text() == "before"
        sink.add(ROW)
    assert len(read(path)) == 1


@pytest.mark.parametrize("name", ["out.csv", "out", "missing/out.jsonl", "folder.jsonl"])
def test_a_path_that_cannot_be_used_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Before anything is read: an unknown format, no folder, a folder."""
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(Misconfigured), written(tmp_path / name, force=True, private=False):
        pass


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
def test_texts_are_for_their_owner_only(tmp_path: Path, name: str) -> None:
    """An export with texts is of mode 0600, whatever the umask."""
    before = os.umask(0)
    try:
        with written(tmp_path / name, force=False, private=True) as sink:
            sink.add(ROW)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


_FILLS_UP = """
import resource, sys
from pathlib import Path
from tests.unit.test_export_file import ROW
from pipeline.errors import Misconfigured, SluiceError
from pipeline.export_file import written

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with written(Path(sys.argv[1]), force=False, private=False) as sink:
        for number in range(100_000):
            sink.add({**ROW, "reason": f"{number * 7919 % 100003} " * 50})
except Misconfigured:
    sys.exit("the wrong error")
except SluiceError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl"])
def test_a_disk_that_fills_up_is_told_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    """The kernel refuses to write on: one clear error, no half file."""
    done = subprocess.run(
        [sys.executable, "-c", _FILLS_UP, str(tmp_path / name)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Make room" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON lines need nothing."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        pytest.raises(Misconfigured, match=r"sluice\[export\]"),
        written(tmp_path / "out.parquet", force=False, private=False),
    ):
        pass
    with written(tmp_path / "out.jsonl", force=False, private=False) as sink:
        sink.add(ROW)
