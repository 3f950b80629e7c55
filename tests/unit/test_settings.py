"""Specification of settings: precedence, strictness, and silence about secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import settings
from pipeline.errors import Misconfigured

SECRET = "do-not-show-this"  # noqa: S105 - nobody's


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of the machine reaches a test."""
    for name in list(os.environ):
        if name.upper().startswith(settings.PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_work_without_any_file() -> None:
    """A bare machine gets loopback addresses and the shipped files."""
    loaded = settings.load()
    assert loaded.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert loaded.worker.http_host == "127.0.0.1"
    assert loaded.policy.file.is_file()


def test_arguments_beat_environment_beats_dotenv_beats_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source wins over those after it, and says so."""
    seen = []
    (tmp_path / "sluice.toml").write_text('[kafka]\ngroup = "file"\n')
    seen.append(settings.load().kafka.group)
    (tmp_path / ".env").write_text("SLUICE_KAFKA__GROUP=dotenv\n")
    seen.append(settings.load().kafka.group)
    monkeypatch.setenv("SLUICE_KAFKA__GROUP", "environment")
    seen.append(settings.load().kafka.group)
    seen.append(settings.load({"kafka": {"group": "argument"}}).kafka.group)
    assert seen == ["file", "dotenv", "environment", "argument"]


def test_origins_say_where_each_value_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sluice config show` names the source of every key and masks secrets."""
    (tmp_path / "sluice.toml").write_text('[kafka]\nusername = "u"\n')
    monkeypatch.setenv("SLUICE_KAFKA__PASSWORD", SECRET)
    overrides = {"worker": {"drain_s": 5.0}}
    rows = {key: (value, where) for key, value, where in
            settings.origins(settings.load(overrides), overrides)}  # fmt: skip
    assert rows["worker.drain_s"] == (5.0, "argument")
    assert rows["kafka.password"][1] == "environment"
    assert rows["kafka.username"] == ("u", "sluice.toml")
    assert rows["kafka.group"][1] == "default"
    assert SECRET not in repr(rows)
    assert SECRET not in str(rows["kafka.password"][0])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"kafka": {"gruop": "x"}}, "setting kafka.gruop: "),
        ({"kafak": {}}, "setting kafak: "),
        ({"worker": {"batch_messages": 0}}, "setting worker.batch_messages: "),
        ({"worker": {"batch_messages": "many"}}, "setting worker.batch_messages: "),
        ({"triton": {"timeout_s": float("inf")}}, "setting triton.timeout_s: "),
        ({"limits": {"dead_letter_ratio": 1.5}}, "setting limits.dead_letter_ratio: "),
        ({"guards": {"names": ()}}, "setting guards.names: "),
        ({"kafka": {"heartbeat_s": 10.0}}, "at least three times heartbeat_s"),
        ({"kafka": {"session_timeout_s": 25.0}}, "request_timeout_s must not be below"),
        ({"kafka": {"security_protocol": "SASL_SSL"}}, "needs username, password"),
        ({"worker": {"drain_s": 41.0}}, "kafka.rebalance_timeout_s must exceed worker.drain_s"),
    ],
)
def test_a_wrong_setting_is_named_with_a_remedy(overrides: dict[str, Any], says: str) -> None:
    """The key, what is wrong with it, and what to do."""
    with pytest.raises(Misconfigured) as caught:
        settings.load(overrides)
    assert says in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "servers",
    ["127.0.0.1:9092", "kafka", "b-1.kafka_net:9092, b-2.kafka_net:65535", "[::1]:9092,[fe80::1]"],
)
def test_an_address_of_kafka_is_a_host_and_a_port(servers: str) -> None:
    """One or several, IPv6 in brackets; without a port it is 9092."""
    assert settings.load({"kafka": {"bootstrap_servers": servers}})


@pytest.mark.parametrize(
    "servers",
    [
        "127.0.0.1:abc", "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:", "a:1,,b:2", "a:1,b:-2",
        "::1", "[::1]9092", "kafka://a:9092", "a b:9092", f"user:{SECRET}@a:9092",
    ],
)  # fmt: skip
def test_what_is_no_address_of_kafka_is_refused_unseen(servers: str) -> None:
    """Before a client is made of it; it may hold a password."""
    with pytest.raises(
        Misconfigured, match=r"kafka\.bootstrap_servers: must be host:port"
    ) as caught:
        settings.load({"kafka": {"bootstrap_servers": servers}})
    _assert_silent(caught.value)


def test_the_limit_of_a_rule_between_settings_is_allowed() -> None:
    """Five seconds between drain and rebalance timeout suffice."""
    assert settings.load({"worker": {"drain_s": 40.0}}).worker.drain_s == 40.0


def test_a_misspelt_section_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would be ignored in silence stops the program."""
    monkeypatch.setenv("SLUICE_KAFAK__GROUP", "x")
    with pytest.raises(Misconfigured, match="SLUICE_KAFAK__GROUP names no section") as caught:
        settings.load()
    assert "kafka" in caught.value.remedy


def test_a_named_file_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing default file is fine, a missing named one is a mistake."""
    monkeypatch.setenv("SLUICE_CONFIG", "absent.toml")
    with pytest.raises(Misconfigured, match=r"no file absent\.toml.*SLUICE_CONFIG"):
        settings.load()


@pytest.mark.parametrize(
    "overrides",
    [
        {"kafka": {"password": SECRET, "group": ""}},
        {"kafka": {"password": [SECRET]}},
        {"kafka": {"passwort": SECRET}},
        {"kafka": {"password": SECRET, "security_protocol": "SASL_SSL"}},
        {"registry": {"password": {"value": SECRET}}},
        {"kafka": {"security_protocol": SECRET}},
        {"kafka": SECRET},
    ],
)
def test_no_settings_error_shows_a_value(overrides: dict[str, Any]) -> None:
    """A secret in the wrong place, or beside a mistake, does not reach the screen."""
    with pytest.raises(Misconfigured) as caught:
        settings.load(overrides)
    _assert_silent(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_KAFKA__PASSWORD", f'["{SECRET}"]'),
        ("SLUICE_KAFKA__BATCH", SECRET),
        ("SLUICE_KAFKA", f'{{"password": "{SECRET}"'),
        ("SLUICE_KAFKA__PASSWORD__X", SECRET),
        ("SLUICE_KAFKA__SESSION_TIMEOUT_S", SECRET),
        ("SLUICE_PASSWORD", SECRET),
    ],
)
def test_no_variable_makes_an_error_that_shows_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A wrong variable is reported without what it held."""
    monkeypatch.setenv(name, value)
    try:
        loaded = settings.load()
    except Misconfigured as error:
        _assert_silent(error)
    else:
        assert name == "SLUICE_KAFKA__PASSWORD"  # a string of brackets is a valid password
        assert SECRET not in repr(loaded)
        assert SECRET not in str(loaded.model_dump())


@pytest.mark.parametrize(
    "content",
    [
        f'[kafka]\npassword = "{SECRET}\n',
        f'[kafka]\npassword = "{SECRET}"\ngroup = 5\n',
        f'password = "{SECRET}"\n',
        f"[kafka]\npassword = {SECRET}\n",
    ],
)
def test_no_file_makes_an_error_that_shows_a_value(tmp_path: Path, content: str) -> None:
    """A file that is cut, misplaced or mistyped is reported without its secrets."""
    (tmp_path / "sluice.toml").write_text(content)
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    _assert_silent(caught.value)


def _assert_silent(error: BaseException) -> None:
    import traceback

    assert SECRET not in str(error)
    assert SECRET not in repr(error.args)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_settings_cannot_be_changed() -> None:
    """Read once: neither a section nor a key can be replaced."""
    loaded = settings.load()
    with pytest.raises(Exception, match="frozen"):
        loaded.kafka.group = "other"  # type: ignore[misc]


def test_home_is_a_variable_or_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the embedded stack keeps its files."""
    monkeypatch.delenv("SLUICE_HOME", raising=False)
    assert settings.home() == tmp_path / ".sluice"
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "x"))
    assert settings.home() == tmp_path / "x"


def test_registry_url_with_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in an address would be shown unmasked: they are refused, unseen."""
    monkeypatch.setenv("SLUICE_REGISTRY__URL", "http://user:hunter2@registry:8081")
    with pytest.raises(Misconfigured, match=r"registry\.url: holds credentials") as caught:
        settings.load()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"user:{SECRET}@registry:8081", f"//user:{SECRET}@registry", f"http:/u:{SECRET}@registry",
        f"http://user:1/{SECRET}@registry", f"registry:{SECRET}", f"http://registry:{SECRET}",
        f"ftp://{SECRET}", f"http://[{SECRET}", f"http://\u2100{SECRET}", "http://", "https://:1",
    ],
)  # fmt: skip
def test_a_registry_url_that_is_none_is_refused_unseen(url: str) -> None:
    """Whatever it holds: a password without a scheme before it is no address."""
    with pytest.raises(Misconfigured, match=r"setting registry\.url: ") as caught:
        settings.load({"registry": {"url": url}})
    _assert_silent(caught.value)


@pytest.mark.parametrize("url", ["http://registry:8081", "https://registry/path", "HTTP://[::1]:1"])
def test_a_registry_url_names_scheme_and_host(url: str) -> None:
    """As it was written."""
    assert settings.load({"registry": {"url": url}}).registry.url == url
