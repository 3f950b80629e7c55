"""`sluice config`, `sluice policy` and `sluice schemas`: what needs nothing running."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from pipeline import settings, settings_file
from tests.support.cli import Sluice


@pytest.fixture
def sluice(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Sluice:
    """The command, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Sluice(capfdbinary)


def test_config_show_tells_where_each_value_came_from(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment, file and default are told apart."""
    Path("sluice.toml").write_text("[worker]\nbatch_messages = 7\n")
    monkeypatch.setenv("SLUICE_KAFKA__GROUP", "mine")
    shown = {each["key"]: each for each in sluice("config", "show", "--json").json["settings"]}
    assert shown["kafka.group"]["origin"] == "environment"
    assert shown["worker.batch_messages"] == {
        "key": "worker.batch_messages",
        "value": 7,
        "origin": "sluice.toml",
    }
    assert shown["triton.url"]["origin"] == "default"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_config_show_masks_secrets(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    """A password is never printed."""
    monkeypatch.setenv("SLUICE_KAFKA__PASSWORD", "hush-hush")
    done = sluice("config", "show", *form)
    assert "hush-hush" not in done.out + done.err
    assert "********" in done.out


def test_a_wrong_setting_is_named_and_exits_2(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, no traceback."""
    monkeypatch.setenv("SLUICE_WORKER__DRAIN_S", "-1")
    done = sluice("config", "show")
    assert done.code == 2
    assert "worker.drain_s" in done.err
    assert "Traceback" not in done.err


def test_config_init_writes_a_file_that_changes_nothing(sluice: Sluice) -> None:
    """The file as written loads, and means the defaults."""
    before = settings.load().model_dump()
    assert sluice("config", "init").code == 0
    assert settings.load().model_dump() == before


def test_config_init_shows_every_default(sluice: Sluice) -> None:
    """Uncommented, each entry is the default; a value that is not set stays out."""
    lines = settings_file.template().splitlines()
    entries = [re.sub(r"^# (?=\w+ = )", "", line) for line in lines if "# not set" not in line]
    Path("sluice.toml").write_text("\n".join(entries))
    tables = tomllib.loads(Path("sluice.toml").read_text())
    assert set(tables) == set(settings.Settings.model_fields)
    assert tables["kafka"]["group"] == "sluice-worker"
    loaded = settings.load()
    assert {origin for _, _, origin in settings.origins(loaded, {})} == {"sluice.toml", "default"}


def test_config_init_never_overwrites(sluice: Sluice) -> None:
    """A file that is there is left alone, exit 2."""
    Path("mine.toml").write_text("# mine")
    done = sluice("config", "init", "mine.toml")
    assert done.code == 2
    assert "exists already" in done.err
    assert Path("mine.toml").read_text() == "# mine"


def test_policy_check_accepts_the_policy_that_ships(sluice: Sluice) -> None:
    """Exit 0 and the digest that verdicts carry."""
    done = sluice("policy", "check", "--json")
    assert done.code == 0
    assert done.json["digest"].startswith("sha256:")


def test_policy_check_names_file_key_and_problem(sluice: Sluice) -> None:
    """A wrong policy exits 2 and says what to change."""
    Path("p.toml").write_text(
        'id = "x"\nversion = "1"\n[default.prompt]\nS10 = { flag = 0.9, block = 0.5 }\n'
    )
    done = sluice("policy", "check", "p.toml")
    assert done.code == 2
    for part in ("p.toml", "default.prompt.S10", "must ascend"):
        assert part in done.err


def test_policy_check_names_a_file_that_is_not_there(sluice: Sluice) -> None:
    """Exit 2 with the path."""
    done = sluice("policy", "check", "nowhere.toml")
    assert done.code == 2
    assert "nowhere.toml" in done.err


def test_policy_show_tells_whose_each_threshold_is(sluice: Sluice) -> None:
    """Floor, default and tenant are told apart."""
    rules = sluice("policy", "show", "--tenant", "kids", "--json").json["rules"]["prompt"]
    origins = {step["category"]: step["origin"] for step in rules["thresholds"]}
    assert origins["S4"] == "floor"
    assert origins["S12"] == "tenant kids"
    assert origins["injection"] == "default"


def test_policy_show_reads_well(sluice: Sluice) -> None:
    """The table names the category and the layer."""
    shown = sluice("policy", "show", "--kind", "prompt").out
    assert "Prompt Injection" in shown
    assert "completions" not in shown


def test_policy_show_says_that_workers_may_serve_another(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activated policy takes the file's place, unless that is not wanted."""
    assert "sluice policy history" in sluice("policy", "show").err
    named = settings.load().policy.file
    assert "sluice policy history" not in sluice("policy", "show", str(named)).err
    monkeypatch.setenv("SLUICE_POLICY__FOLLOW", "false")
    assert "sluice policy history" not in sluice("policy", "show").err


def test_a_registry_s_password_is_not_printed(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the url lacks its scheme."""
    monkeypatch.setenv("SLUICE_REGISTRY__URL", "user:hush-hush@localhost:8081")
    done = sluice("schemas", "check")
    assert done.code == 2
    assert "hush-hush" not in done.out + done.err


def test_policy_show_refuses_a_route_that_is_not_there(sluice: Sluice) -> None:
    """A misspelt route is not shown as the tenant's rules."""
    assert sluice("policy", "show", "--tenant", "kids", "--route", "nowhere").code == 2


def test_schemas_check_passes_for_this_release(sluice: Sluice) -> None:
    """Exit 0, every check made."""
    done = sluice("schemas", "check", "--json")
    assert done.code == 0
    assert all(finding["ok"] for finding in done.json["findings"])


def test_schemas_register_needs_a_registry(sluice: Sluice) -> None:
    """Exit 2 and the key to set."""
    done = sluice("schemas", "register")
    assert done.code == 2
    assert "registry.url" in done.err


@pytest.mark.parametrize("command", ["check", "register"])
def test_a_registry_that_is_away_exits_3(
    sluice: Sluice, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The error names its address."""
    monkeypatch.setenv("SLUICE_REGISTRY__URL", "http://127.0.0.1:9")
    done = sluice("schemas", command)
    assert done.code == 3
    assert "http://127.0.0.1:9" in done.err


class _Registry(BaseHTTPRequestHandler):
    """Speaks the two requests of the Confluent API that we send."""

    ids: ClassVar[dict[str, int]] = {}

    def do_POST(self) -> None:
        """Look a subject's schema up, or register it as `versions`."""
        size_bytes = int(self.headers["Content-Length"])
        json.loads(json.loads(self.rfile.read(size_bytes))["schema"])
        _, _, subject, *register = self.path.split("/")
        if register:
            self.ids.setdefault(subject, 100 + len(self.ids))
        self.send_response(200 if subject in self.ids else 404)
        self.end_headers()
        found = self.ids.get(subject)
        self.wfile.write(json.dumps({"id": found} if found else {"error_code": 40403}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry that has nothing yet, configured."""
    _Registry.ids.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Registry) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("SLUICE_REGISTRY__URL", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


TOPICS = ("prompts", "completions", "verdicts", "audit", "policies", "chain-heads")


def test_schemas_are_registered_under_their_topics(sluice: Sluice, registry: None) -> None:
    """Missing before, there after; registering twice changes nothing."""
    assert sluice("schemas", "check").code == 1
    first = sluice("schemas", "register", "--json").json["ids"]
    assert set(first) == {f"moderation.{topic}.v1-value" for topic in TOPICS}
    assert sluice("schemas", "register", "--json").json["ids"] == first
    assert sluice("schemas", "check").code == 0
