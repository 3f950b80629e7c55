"""A folder of content keys, one file a key version: sealing and opening with them.

    <tenant digest>.<version>.<key id>.key      mode 0600 in a folder of mode 0700
    <tenant digest>.<version>.<key id>.erased   a key that is gone, and since when

The digest makes any tenant's name fit for a file name; a key id is random and
says nothing of its tenant. A tenant's active key is its highest version that
is not erased; the others still open. Once a second, when a key is asked for,
the folder's time of change is looked at, so that workers which share it,
perhaps read-only, follow creation, rotation and erasure without a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import shlex
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pipeline.errors import KeyUnavailable, Misconfigured
from pipeline.sealing import KEY_BYTES, Sealed, seal, unseal

RELIST_S: Final = 1.0
"""How old the list of keys may be: so soon a worker follows an erasure."""

_NAME: Final = re.compile(r"([0-9a-f]{32})\.([0-9]{1,9})\.([0-9a-f]{32})\.(key|erased)")
_PRIVATE: Final = "chmod 700 the folder and chmod 600 its files; only the workers' user may read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key version as its file's name tells it."""

    owner: str
    version: int
    key_id: str
    erased: bool
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """What a key's file holds; `key` None once it is erased."""

    tenant: str
    key_id: str
    version: int
    created_at: datetime
    key: bytes | None = field(repr=False)
    erased_at: datetime | None = None


def owner_of(tenant: str) -> str:
    """The tenant as file names show it: 128 bits of a SHA-256, in hex."""
    named = b"sluice tenant/" + tenant.encode("utf-8", "surrogatepass")
    return hashlib.sha256(named).hexdigest()[:32]


class KeyFolder:
    """A `Sealer` and an `Opener` over a key folder."""

    def __init__(self, folder: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._monotonic = monotonic
        self._looked_s = float("-inf")
        self._changed_ns = -1
        self._settled = False
        self._active: dict[str, Entry] = {}
        self._by_id: dict[str, Entry] = {}
        self._keys: dict[str, bytes] = {}

    def check(self) -> None:
        """Raise Misconfigured where the folder is missing, or others may read it or a key."""
        require_private_folder(self._folder)
        self._relist()
        for entry in self._by_id.values():
            if not entry.erased:
                require_private_file(entry.path)

    def has_active(self, tenant: str) -> bool:
        """Whether the tenant's content can be sealed now."""
        self._refresh()
        entry = self._active.get(owner_of(tenant))
        return entry is not None and self._key(entry) is not None

    def seal(self, tenant: str, content: bytes, *, bound_to: str) -> Sealed:
        """See `sealing.Sealer`."""
        self._refresh()
        entry = self._active.get(owner_of(tenant))
        key = None if entry is None else self._key(entry)
        if entry is None or key is None:
            raise Misconfigured(
                f"tenant {tenant!r} has no active key in {self._folder}",
                remedy=f"Run {create_command(tenant)}, or ask for another retention",
            )
        return Sealed(key_id=entry.key_id, ciphertext=seal(key, content, bound_to=bound_to))

    def open(self, key_id: str, ciphertext: bytes, *, bound_to: str) -> bytes:
        """See `sealing.Opener`."""
        self._refresh()
        entry = self._by_id.get(key_id)
        if entry is None:
            raise KeyUnavailable(
                f"there is no key {key_id} in {self._folder}",
                remedy="Use the folder that the worker sealed with; the text is not lost",
                erased=False,
            )
        key = None if entry.erased else self._key(entry)
        if key is None:
            raise KeyUnavailable(
                f"key {key_id} was erased: this text cannot be read again",
                remedy="The verdict and its chain hold without it",
                erased=True,
            )
        return unseal(key, ciphertext, bound_to=bound_to)

    def _key(self, entry: Entry) -> bytes | None:
        """The key's bytes, read once; None for one that an erasure has just overwritten."""
        if entry.key_id not in self._keys:
            key = read_file(entry).key
            if key is None:
                return None
            self._keys[entry.key_id] = key
        return self._keys[entry.key_id]

    def _refresh(self) -> None:
        if self._monotonic() - self._looked_s < RELIST_S:
            return
        if not self._settled or self._folder_changed_ns() != self._changed_ns:
            self._relist()
        self._looked_s = self._monotonic()

    def _relist(self) -> None:
        """List the keys; twice after a change, as a second one may share its time stamp."""
        changed_ns = self._folder_changed_ns()
        entries = entries_in(self._folder)
        self._active = active_keys(entries)
        self._by_id = {entry.key_id: entry for entry in entries}
        living = {entry.key_id for entry in entries if not entry.erased}
        self._keys = {key_id: key for key_id, key in self._keys.items() if key_id in living}
        self._settled = changed_ns == self._changed_ns
        self._changed_ns = changed_ns

    def _folder_changed_ns(self) -> int:
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return -1  # listing it says why


def create_command(tenant: str) -> str:
    """The command that gives a tenant a key."""
    whom = shlex.quote(tenant) if tenant else "--default"
    return f"`sluice audit keys create {whom}`"


def entries_in(folder: Path) -> list[Entry]:
    """Every key version; a tombstone counts, not its key. Raises Misconfigured without a folder."""
    try:
        names = sorted((path.name for path in folder.iterdir()), reverse=True)
    except OSError as error:
        raise Misconfigured(
            f"the key folder {folder} cannot be listed ({error.strerror})",
            remedy="Correct audit.keys_folder; `sluice audit keys create` makes the folder",
        ) from None
    found: dict[str, Entry] = {}
    for name in names:  # of one key, its tombstone comes after it, and wins
        if form := _NAME.fullmatch(name):
            owner, version, key_id, kind = form.groups()
            found[key_id] = Entry(
                owner=owner,
                version=int(version),
                key_id=key_id,
                erased=kind == "erased",
                path=folder / name,
            )
    return sorted(found.values(), key=lambda entry: (entry.owner, entry.version))


def active_keys(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Each owner's highest version that is not erased."""
    living = (entry for entry in entries if not entry.erased)
    return {entry.owner: entry for entry in sorted(living, key=lambda entry: entry.version)}


def read_file(entry: Entry) -> KeyFile:
    """What a key's file or tombstone says; raises Misconfigured where it is unusable."""
    require_private_file(entry.path)
    try:
        document: Mapping[str, Any] = json.loads(entry.path.read_bytes())
        erased = document.get("erased_at")
        found = KeyFile(
            tenant=document["tenant"],
            key_id=document["key_id"],
            version=document["version"],
            created_at=datetime.fromisoformat(document["created_at"]),
            key=None if erased else _key_of(document["key"]),
            erased_at=datetime.fromisoformat(erased) if erased else None,
        )
        if found.key_id != entry.key_id or owner_of(found.tenant) != entry.owner:
            raise ValueError("renamed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Misconfigured(
            f"the key file {entry.path} is unusable ({type(error).__name__})",
            remedy="Restore it from a backup; texts sealed with it cannot be read without it",
        ) from None
    return found


def _key_of(text: str) -> bytes | None:
    """The key's bytes; None where an erasure has overwritten them."""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError("wrong length")
    return key if any(key) else None


def require_private_folder(folder: Path) -> None:
    """Raise Misconfigured where it is no folder, or others than its owner may use it."""
    _require_private(folder, "folder", stat.S_ISDIR)


def require_private_file(path: Path) -> None:
    """Raise Misconfigured where it is no file, or others than its owner may use it."""
    _require_private(path, "file", stat.S_ISREG)


def _require_private(path: Path, what: str, is_kind: Callable[[int], bool]) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Misconfigured(
            f"the key {what} {path} cannot be used ({error.strerror})",
            remedy="Correct audit.keys_folder; `sluice audit keys create` makes the folder",
        ) from None
    if not is_kind(mode):
        raise Misconfigured(f"{path} is no {what}", remedy="Correct audit.keys_folder")
    if mode & 0o077:
        raise Misconfigured(
            f"the key {what} {path} is open to others (mode {stat.S_IMODE(mode):04o})",
            remedy=_PRIVATE,
        )


def versions_of(entries: Iterable[Entry], tenant: str) -> Iterator[Entry]:
    """A tenant's key versions, oldest first."""
    owner = owner_of(tenant)
    return (entry for entry in entries if entry.owner == owner)
