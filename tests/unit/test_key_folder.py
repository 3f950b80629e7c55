"""Specification of the key folder: private, followed without a restart, erased for good."""

from __future__ import annotations

import base64
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters import key_admin, keys
from pipeline.adapters.keys import KeyFolder
from pipeline.errors import KeyUnavailable, Misconfigured, SealBroken

from .fakes import NOON, FakeClock
from .strategies import texts

LATER = NOON + timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a folder of keys will be."""
    return tmp_path / "keys"


def opened_at(folder: Path, clock: FakeClock) -> KeyFolder:
    """A worker's view of the folder."""
    return KeyFolder(folder, monotonic=clock.monotonic)


def sealed(keys: KeyFolder, tenant: str = "acme") -> Any:
    """A text of a tenant, sealed."""
    return keys.seal(tenant, b"text", bound_to="a:0:1/content")


def open_again(keys: KeyFolder, one: Any) -> bytes:
    """What was sealed."""
    return keys.open(one.key_id, one.ciphertext, bound_to="a:0:1/content")


def test_a_created_key_seals_and_opens(folder: Path, clock: FakeClock) -> None:
    """What one worker sealed, another opens."""
    made = key_admin.create(folder, "acme", now=NOON)
    one = sealed(opened_at(folder, clock))
    assert one.key_id == made.key_id
    assert open_again(opened_at(folder, clock), one) == b"text"


@given(st.lists(texts, min_size=2, max_size=4, unique=True))
def test_any_tenant_has_a_key_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, tenants: list[str]
) -> None:
    """Whatever its name, also none, slashes or dots; one tenant's key opens no other's text."""
    folder = tmp_path_factory.mktemp("any") / "keys"
    for tenant in tenants:
        key_admin.create(folder, tenant, now=NOON)
    found = KeyFolder(folder)
    found.check()
    ones = [sealed(found, tenant) for tenant in tenants]
    assert len({one.key_id for one in ones}) == len(tenants)
    with pytest.raises(SealBroken):
        found.open(ones[0].key_id, ones[1].ciphertext, bound_to="a:0:1/content")
    assert {file.parent for file in folder.rglob("*")} == {folder}


def test_names_of_files_and_keys_do_not_show_the_tenant(folder: Path) -> None:
    """A key id crosses topics: it says nothing of whose it is, nor is it made from that."""
    ids = {key_admin.create(folder / n, "acme", now=NOON).key_id for n in ("one", "two")}
    assert len(ids) == 2
    names = [path.name for path in folder.rglob("*.key")]
    assert len(names) == 2
    assert not any("acme" in name for name in names)


def test_files_are_for_their_owner_only(folder: Path) -> None:
    """Whatever the umask: the folder 0700, each file 0600, tombstones as well."""
    before = os.umask(0)
    try:
        key_admin.create(folder, "acme", now=NOON)
        key_admin.create(folder, "other", now=NOON)
        key_admin.erase(folder, "other", now=NOON)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert (folder.stat().st_mode & 0o777, modes) == (0o700, {0o600})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_touch_is_refused(folder: Path, clock: FakeClock, mode: int) -> None:
    """At the start, and where the mode changed later, before it is first used."""
    key_admin.create(folder, "acme", now=NOON)
    keys = opened_at(folder, clock)
    next(folder.glob("*.key")).chmod(mode)
    for refused in (keys.check, lambda: sealed(keys), lambda: key_admin.listed(folder)):
        with pytest.raises(Misconfigured, match=r"open to others \(mode 06.*chmod 600"):
            refused()


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711])
def test_a_folder_that_others_may_enter_is_refused(
    folder: Path, clock: FakeClock, mode: int
) -> None:
    """Every use of it says so."""
    key_admin.create(folder, "acme", now=NOON)
    folder.chmod(mode)
    for refused in (
        opened_at(folder, clock).check,
        lambda: key_admin.create(folder, "b", now=NOON),
        lambda: key_admin.rotate(folder, "acme", now=NOON),
        lambda: key_admin.erase(folder, "acme", now=NOON),
    ):
        with pytest.raises(Misconfigured, match="chmod 700"):
            refused()


def test_a_missing_folder_is_named(folder: Path, clock: FakeClock) -> None:
    """With the setting that leads to it."""
    with pytest.raises(Misconfigured, match=r"audit\.keys_folder"):
        opened_at(folder, clock).check()
    folder.touch()
    with pytest.raises(Misconfigured, match="no folder"):
        opened_at(folder, clock).check()


def test_without_a_key_the_error_names_tenant_and_command(folder: Path, clock: FakeClock) -> None:
    """What to type next, quoted for a shell."""
    key_admin.create(folder, "acme", now=NOON)
    keys = opened_at(folder, clock)
    with pytest.raises(Misconfigured, match=r"'my shop'.*keys create 'my shop'"):
        sealed(keys, "my shop")
    with pytest.raises(Misconfigured, match=r"keys create --default"):
        sealed(keys, "")
    assert (keys.has_active("acme"), keys.has_active("my shop")) == (True, False)


def test_rotation_seals_with_the_new_key_and_opens_with_the_old(
    folder: Path, clock: FakeClock
) -> None:
    """A running worker follows within a second, without a restart."""
    key_admin.create(folder, "acme", now=NOON)
    keys = opened_at(folder, clock)
    old = sealed(keys)
    made = key_admin.rotate(folder, "acme", now=LATER)
    assert sealed(keys).key_id == old.key_id
    clock.advance(keys_followed())
    new = sealed(keys)
    assert (new.key_id, made.version) == (made.key_id, 2)
    assert open_again(keys, old) == open_again(keys, new) == b"text"


def keys_followed() -> float:
    """So many seconds after a change every worker acts on it."""
    return keys.RELIST_S


def test_a_key_created_while_running_is_used(folder: Path, clock: FakeClock) -> None:
    """A tenant that had none seals as soon as the folder is read again."""
    key_admin.create(folder, "other", now=NOON)
    keys = opened_at(folder, clock)
    with pytest.raises(Misconfigured):
        sealed(keys)
    key_admin.create(folder, "acme", now=NOON)
    clock.advance(keys_followed())
    assert open_again(keys, sealed(keys)) == b"text"


def test_an_erased_key_is_gone_for_good(folder: Path, clock: FakeClock) -> None:
    """All versions; also a worker that had them in memory; "erased" is told from "unknown"."""
    key_admin.create(folder, "acme", now=NOON)
    key_admin.create(folder, "other", now=NOON)
    keys = opened_at(folder, clock)
    first = sealed(keys)
    key_admin.rotate(folder, "acme", now=NOON)
    clock.advance(keys_followed())
    second, others = sealed(keys), sealed(keys, "other")
    gone = key_admin.erase(folder, "acme", now=LATER)
    assert [(key.version, key.erased_at) for key in gone] == [(1, LATER), (2, LATER)]
    clock.advance(keys_followed())
    for view in (keys, opened_at(folder, clock)):
        for one in (first, second):
            with pytest.raises(KeyUnavailable, match="erased") as caught:
                open_again(view, one)
            assert caught.value.erased
        with pytest.raises(KeyUnavailable) as caught:
            view.open("0" * 32, first.ciphertext, bound_to="x")
        assert not caught.value.erased
        assert open_again(view, others) == b"text"
        assert not view.has_active("acme")


def test_an_erasure_overwrites_the_bytes_before_it_removes_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second name of the same file, as a snapshot would hold, has no key any more."""
    key_admin.create(folder, "acme", now=NOON)
    (file,) = folder.glob("*.key")
    twin = folder.parent / "twin"
    os.link(file, twin)
    before = json.loads(twin.read_bytes())
    key_admin.erase(folder, "acme", now=LATER)
    after = json.loads(twin.read_bytes())
    assert any(base64.b64decode(before["key"]))
    assert base64.b64decode(after["key"]) == bytes(32)
    assert not list(folder.glob("*.key"))
    assert not any(before["key"].encode() in path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("step", ["_put", "_sync", "unlink"])
def test_an_erasure_that_was_cut_short_can_be_repeated(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Once it has begun nothing opens, and doing it again ends it."""
    key_admin.create(folder, "acme", now=NOON)
    one = sealed(opened_at(folder, clock))

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(Path if step == "unlink" else key_admin, step, crash)
        with pytest.raises(RuntimeError):
            key_admin.erase(folder, "acme", now=NOON)
    keys = opened_at(folder, clock)
    with pytest.raises(KeyUnavailable) as caught:
        open_again(keys, one)
    assert caught.value.erased
    with pytest.raises(Misconfigured):
        sealed(keys)
    key_admin.erase(folder, "acme", now=LATER)
    assert [path.suffix for path in folder.glob("[0-9a-f]*")] == [".erased"]


def test_after_an_erasure_a_new_key_may_be_made(folder: Path, clock: FakeClock) -> None:
    """With the next version; the old texts stay unreadable."""
    key_admin.create(folder, "acme", now=NOON)
    one = sealed(opened_at(folder, clock))
    key_admin.erase(folder, "acme", now=NOON)
    assert key_admin.create(folder, "acme", now=LATER).version == 2
    keys = opened_at(folder, clock)
    assert open_again(keys, sealed(keys)) == b"text"
    with pytest.raises(KeyUnavailable):
        open_again(keys, one)


def test_create_and_rotate_do_not_stand_in_for_each_other(folder: Path) -> None:
    """Each names the other where it is the one that is meant."""
    key_admin.create(folder, "acme", now=NOON)
    with pytest.raises(Misconfigured, match="keys rotate"):
        key_admin.create(folder, "acme", now=NOON)
    with pytest.raises(Misconfigured, match="keys create other"):
        key_admin.rotate(folder, "other", now=NOON)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"{}",
        lambda _: b"[]",
        lambda text: text[:-9],
        lambda text: text.replace(b'"key": "', b'"key": "!'),
        lambda text: text.replace(b"acme", b"evil"),
        lambda text: text.replace(b'"key": "', b'"key": "AAAA'),
    ],
)
def test_a_damaged_key_file_is_named_and_never_quoted(
    folder: Path, clock: FakeClock, damage: Any
) -> None:
    """The error says which file, and shows none of what it holds."""
    key_admin.create(folder, "acme", now=NOON)
    (file,) = folder.glob("*.key")
    key = json.loads(file.read_bytes())["key"]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(Misconfigured, match="backup") as caught:
        sealed(opened_at(folder, clock))
    assert str(file) in str(caught.value)
    assert key[:10] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_listed_holds_no_key_and_is_not_shown_by_accident(folder: Path) -> None:
    """Neither the listing nor the repr of a key carries its bytes."""
    made = key_admin.create(folder, "acme", now=NOON)
    (listed,) = key_admin.listed(folder)
    assert (listed.key, made.key) == (None, None)
    entry = keys.entries_in(folder)[0]
    read = keys.read_file(entry)
    assert read.key is not None
    assert repr(read.key)[2:20] not in repr(read)


def test_other_files_in_the_folder_are_passed_over(folder: Path, clock: FakeClock) -> None:
    """A lock, half a file, a README."""
    key_admin.create(folder, "acme", now=NOON)
    (folder / "README").write_text("x")
    (folder / ".half").write_text("x")
    opened_at(folder, clock).check()
    assert len(key_admin.listed(folder)) == 1
