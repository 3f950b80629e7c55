"""The committed schemas against the released ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fastavro
import pytest

from pipeline import schema_check
from pipeline.errors import Misconfigured
from pipeline.resources import shipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the schemas that may be changed."""
    return Path(shutil.copytree(shipped("schemas"), tmp_path / "schemas"))


def edit(folder: Path, name: str, change: Any) -> list[str]:
    """Change a schema's fields; the checks that fail, as `schema: check`."""
    path = folder / name
    document = json.loads(path.read_text())
    change(document["fields"])
    path.write_text(json.dumps(document))
    return [f"{f.schema}: {f.check}" for f in schema_check.check(folder) if f.ok is False]


def test_the_committed_schemas_are_compatible(folder: Path) -> None:
    """Every check was made and passed."""
    assert all(finding.ok for finding in schema_check.check(folder))


def test_each_schema_stands_alone(folder: Path) -> None:
    """A registry gets schemas that name nothing outside themselves."""
    for text in schema_check.texts(folder).values():
        fastavro.parse_schema(json.loads(text), named_schemas={})


def test_a_new_field_without_default_is_refused(folder: Path) -> None:
    """What was published before could no longer be read."""
    failed = edit(
        folder, "prompt.v1.avsc", lambda fields: fields.append({"name": "x", "type": "string"})
    )
    assert failed == ["prompt.v1.avsc: new reads released"]


def test_a_verdict_must_stay_readable_by_old_programs(folder: Path) -> None:
    """Removing a field that has no default breaks readers of the release before."""
    failed = edit(folder, "verdict.v1.avsc", lambda fields: fields.pop(0))
    assert "verdict.v1.avsc: released reads new" in failed
    assert "audit.v1.avsc: released reads new" in failed


def test_an_enum_must_fall_back_to_unknown(folder: Path) -> None:
    """A permissive default would turn a new action into it."""

    def permissive(fields: list[dict[str, Any]]) -> None:
        action = next(field for field in fields if field["name"] == "action")
        action["type"]["default"] = "allow"

    failed = edit(folder, "verdict.v1.avsc", permissive)
    assert "verdict.v1.avsc: enums default to UNKNOWN" in failed


def test_a_missing_schema_is_named(folder: Path) -> None:
    """The error names the folder and the remedy."""
    (folder / "released" / "audit.v1.avsc").unlink()
    with pytest.raises(Misconfigured, match="cannot be read"):
        schema_check.check(folder)
