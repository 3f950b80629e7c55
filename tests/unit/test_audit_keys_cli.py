"""`sluice audit keys`: keys come, change and go, and no key byte is ever shown."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest

from pipeline.cli.exits import Exit
from tests.support.cli import Done, Sluice

POLICY = """
id = "p"
version = "1"
[default]
[tenants.acme]
retention = "encrypted"
[tenants.globex]
retention = "encrypted"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configured key folder, not yet made."""
    path = tmp_path / "keys"
    monkeypatch.setenv("SLUICE_AUDIT__KEYS_FOLDER", str(path))
    return path


class Watched(Sluice):
    """The command, whose output is searched for every key that ever lay in the folder."""

    def __init__(self, capture: pytest.CaptureFixture[bytes], folder: Path) -> None:
        super().__init__(capture)
        self.folder = folder

    def __call__(self, *arguments: str) -> Done:
        """Run `sluice audit keys ...`."""
        secrets = self._secrets()
        done = super().__call__("audit", "keys", *arguments)
        said = (done.out + done.err).encode()
        for key in secrets | self._secrets():
            assert key not in said
            assert base64.b64decode(key).hex().encode() not in said
        return done

    def _secrets(self) -> set[bytes]:
        files = self.folder.glob("*.key") if self.folder.exists() else ()
        return {json.loads(file.read_bytes())["key"].encode() for file in files}


@pytest.fixture
def keys(capfdbinary: pytest.CaptureFixture[bytes], folder: Path) -> Watched:
    """The command over that folder."""
    return Watched(capfdbinary, folder)


def test_a_key_is_created_rotated_listed_and_erased(keys: Watched) -> None:
    """Its whole life, as JSON tells it."""
    assert keys("create", "acme").code == Exit.OK
    assert keys("rotate", "acme", "--json").json["keys"][0]["version"] == 2
    assert keys("create", "--default").code == Exit.OK
    states = [(k["tenant"], k["version"], k["state"]) for k in keys("ls", "--json").json["keys"]]
    assert states == [("", 1, "active"), ("acme", 1, "opens only"), ("acme", 2, "active")]
    done = keys("erase", "acme", "--yes")
    assert done.code == Exit.OK
    assert done.out.count("erased") == 2
    left = {k["tenant"]: k for k in keys("ls", "--json").json["keys"]}
    assert (left["acme"]["state"], left[""]["state"]) == ("erased", "active")
    assert left["acme"]["erased_at"]
    assert keys("erase", "acme", "--yes").code == Exit.EMPTY
    assert keys("create", "acme").code == Exit.OK


def test_people_read_a_table(keys: Watched) -> None:
    """Tenant, version, state, since when."""
    assert "keys create" in keys("ls").err
    keys("create", "acme")
    shown = keys("ls").out
    assert "acme" in shown
    assert "active" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create",), "Give a TENANT, or --default"),
        (("create", "acme", "--default"), "Give a TENANT, or --default"),
        (("rotate", "globex"), "keys create globex"),
        (("create", "acme"), "keys rotate"),
        (("erase", "acme"), "Add --yes"),
    ],
)
def test_a_mistake_changes_nothing_and_names_the_way_on(
    keys: Watched, arguments: tuple[str, ...], said: str
) -> None:
    """Exit 2, one line, the remedy in it."""
    keys("create", "acme")
    before = sorted(path.name for path in keys.folder.iterdir())
    done = keys(*arguments)
    assert done.code == Exit.USAGE
    assert said in done.err
    assert sorted(path.name for path in keys.folder.iterdir()) == before


def test_an_erasure_asks_and_takes_no_for_an_answer(
    keys: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever says no keeps the keys."""
    keys("create", "acme")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert keys("erase", "acme").code == Exit.FAILURE
    assert list(keys.folder.glob("*.key"))


def test_without_the_setting_it_is_named(keys: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable to set, in the error."""
    monkeypatch.delenv("SLUICE_AUDIT__KEYS_FOLDER")
    done = keys("ls")
    assert (done.code, "SLUICE_AUDIT__KEYS_FOLDER" in done.err) == (Exit.USAGE, True)


def test_the_policy_check_names_tenants_without_a_key(
    keys: Watched, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And what to do; without a folder it says that it did not look."""
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    sluice = Sluice(capfdbinary)
    keys("create", "acme")
    done = sluice("policy", "check", str(file), "--json")
    assert (done.code, done.json["tenants_without_key"]) == (Exit.OK, ["globex"])
    assert "`sluice audit keys create globex`" in done.err
    keys.folder.chmod(0o755)
    done = sluice("policy", "check", str(file))
    assert (done.code, "chmod 700" in done.err) == (Exit.USAGE, True)
    monkeypatch.delenv("SLUICE_AUDIT__KEYS_FOLDER")
    done = sluice("policy", "check", str(file), "--json")
    assert (done.code, done.json["tenants_without_key"]) == (Exit.OK, None)
    assert "audit.keys_folder" in done.err


def test_a_worker_without_a_key_folder_does_not_start(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that wants content encrypted and nothing to do it with: exit 2, the remedy said."""
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    monkeypatch.setenv("SLUICE_POLICY__FILE", str(file))
    from pipeline import settings, wiring, wiring_worker
    from pipeline.adapters.clock import SystemClock
    from pipeline.errors import Misconfigured
    from pipeline.health import Health

    loaded = settings.load()
    policy, health = wiring.load_policy(loaded), Health(["keys"])
    with pytest.raises(Misconfigured, match=r"audit\.keys_folder"):
        wiring_worker.open_sealer(loaded, policy, health, SystemClock())
    monkeypatch.setenv("SLUICE_AUDIT__KEYS_FOLDER", str(tmp_path / "keys"))
    Sluice(capfdbinary)("audit", "keys", "create", "acme")
    _, expect = wiring_worker.open_sealer(settings.load(), policy, health, SystemClock())
    assert "'globex'" in health.ready()[1]["keys"]["detail"]
    monkeypatch.delenv("SLUICE_POLICY__FILE")
    expect(wiring.load_policy(settings.load()))  # another policy comes into force
    assert "'globex'" not in health.ready()[1]["keys"]["detail"]
    expect(policy)
    assert "'globex'" in health.ready()[1]["keys"]["detail"]
