"""A key folder's upkeep: create, rotate, erase, list. One change at a time."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pipeline.adapters.keys import (
    Entry,
    KeyFile,
    active_keys,
    create_command,
    entries_in,
    owner_of,
    read_file,
    require_private_folder,
    versions_of,
)
from pipeline.errors import Misconfigured
from pipeline.sealing import KEY_BYTES

_FORMAT: Final = 1
_LOCK: Final = ".lock"


def create(folder: Path, tenant: str, *, now: datetime) -> KeyFile:
    """A tenant's first key, or its next after an erasure; makes the folder if need be.

    Raises Misconfigured when the tenant has an active key already.
    """
    _make(folder)
    with _alone(folder):
        if owner_of(tenant) in active_keys(entries_in(folder)):
            raise Misconfigured(
                f"{whose(tenant)} has an active key already",
                remedy="`sluice audit keys rotate` replaces it and keeps the old one readable",
            )
        return _write_next(folder, tenant, now)


def rotate(folder: Path, tenant: str, *, now: datetime) -> KeyFile:
    """A new active key; the old ones still open. Raises Misconfigured without an active one."""
    require_private_folder(folder)
    with _alone(folder):
        if owner_of(tenant) not in active_keys(entries_in(folder)):
            raise Misconfigured(
                f"{whose(tenant)} has no active key to rotate",
                remedy=f"Run {create_command(tenant)}",
            )
        return _write_next(folder, tenant, now)


def erase(folder: Path, tenant: str, *, now: datetime) -> list[KeyFile]:
    """Overwrite and remove every key of a tenant; tombstones stay. Returns what was erased.

    Safe to repeat after a crash: the bytes are overwritten first, the tombstone
    is written next, and only then does the key's file go.
    """
    require_private_folder(folder)
    with _alone(folder):
        known = list(versions_of(entries_in(folder), tenant))
        gone = [_erase(folder, entry, now) for entry in known if not entry.erased]
        for entry in known:
            entry.path.with_suffix(".key").unlink(missing_ok=True)  # of one cut short before
        _sync(folder)
        return gone


def listed(folder: Path) -> list[KeyFile]:
    """Every key and tombstone without key bytes, by tenant and version."""
    require_private_folder(folder)
    found = [_without_key(read_file(entry)) for entry in entries_in(folder)]
    return sorted(found, key=lambda each: (each.tenant, each.version))


def whose(tenant: str) -> str:
    """A tenant in words; messages without one have a key as well."""
    return f"tenant {tenant!r}" if tenant else "the default tenant (messages without one)"


def _without_key(found: KeyFile) -> KeyFile:
    return KeyFile(
        tenant=found.tenant,
        key_id=found.key_id,
        version=found.version,
        created_at=found.created_at,
        key=None,
        erased_at=found.erased_at,
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            f"the key folder {folder} cannot be made ({error.strerror})",
            remedy="Correct audit.keys_folder",
        ) from None
    require_private_folder(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raises Misconfigured where the folder is read-only."""
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        os.close(handle)


def _unwritable(folder: Path, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"the key folder {folder} cannot be written ({error.strerror})",
        remedy="Run this where the folder is writable; workers need only read it",
    )


def _write_next(folder: Path, tenant: str, now: datetime) -> KeyFile:
    latest = max((each.version for each in versions_of(entries_in(folder), tenant)), default=0)
    made = KeyFile(
        tenant=tenant,
        key_id=secrets.token_hex(16),
        version=latest + 1,
        created_at=now,
        key=secrets.token_bytes(KEY_BYTES),
    )
    key = base64.b64encode(made.key or b"").decode()
    _put(folder, _name(made, "key"), {**_document(made), "algorithm": "AES-256-GCM", "key": key})
    return _without_key(made)


def _erase(folder: Path, entry: Entry, now: datetime) -> KeyFile:
    known = read_file(entry)
    _overwrite(entry.path)
    gone = KeyFile(
        tenant=known.tenant,
        key_id=known.key_id,
        version=known.version,
        created_at=known.created_at,
        key=None,
        erased_at=now,
    )
    _put(folder, _name(gone, "erased"), {**_document(gone), "erased_at": now.isoformat()})
    entry.path.unlink()
    return gone


def _overwrite(path: Path) -> None:
    """Put zeros where the key is, in place and on the disk, before its file is removed."""
    document = json.loads(path.read_bytes())
    document["key"] = base64.b64encode(bytes(KEY_BYTES)).decode()
    with path.open("r+b") as file:
        file.write(json.dumps(document).encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _document(each: KeyFile) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "tenant": each.tenant,
        "key_id": each.key_id,
        "version": each.version,
        "created_at": each.created_at.isoformat(),
    }


def _name(each: KeyFile, kind: str) -> str:
    return f"{owner_of(each.tenant)}.{each.version}.{each.key_id}.{kind}"


def _put(folder: Path, name: str, document: dict[str, Any]) -> None:
    """Write a file of mode 0600 that is there whole or not at all."""
    half = folder / f".{name}.half"
    half.unlink(missing_ok=True)
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(json.dumps(document).encode())
        file.flush()
        os.fsync(file.fileno())
    half.rename(folder / name)
    _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
