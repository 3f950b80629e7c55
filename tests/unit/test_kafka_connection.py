"""Why a broker was not reached: gone, not trusted, or turning us away."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaTimeoutError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from pipeline.adapters import kafka_connection, kafka_topics, tls
from pipeline.adapters.kafka_connection import connected, open_admin, security
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.settings import KafkaSettings, TopicSettings

PASSWORD = "do-not-show-this"  # noqa: S105 - nobody's
PLAIN = KafkaSettings()
SASL = KafkaSettings.model_validate(
    {"security_protocol": "SASL_SSL", "username": "u", "password": PASSWORD}
)


def _untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


async def _no_connection() -> None:
    raise KafkaConnectionError("Unable to bootstrap")


async def _nothing() -> None:
    """There is nothing to stop."""


def _tells(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[tuple[Any, ...]]:
    """Let a broker tell why it turns us away; whom was asked."""
    asked: list[tuple[Any, ...]] = []

    async def create(host: str, port: int, **arguments: Any) -> Any:
        asked.append((host, port, arguments["security_protocol"]))
        raise error

    monkeypatch.setattr(kafka_connection, "create_conn", create)
    return asked


@pytest.mark.parametrize(
    "error",
    [SaslAuthenticationFailed("no"), UnsupportedSaslMechanismError(), IllegalSaslStateError()],
)
async def test_credentials_that_are_refused_are_a_person_s_to_correct(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It answers: starting it would not help. The password stays unsaid."""
    asked = _tells(monkeypatch, error)
    with pytest.raises(Misconfigured, match=r"refuses the credentials.*kafka\.password") as caught:
        await connected(_no_connection, _nothing, SASL)
    assert asked == [("127.0.0.1", 9092, "SASL_SSL")]
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("error", [SaslAuthenticationFailed("no"), _untrusted()])
async def test_who_was_connected_before_is_not_ended_by_a_refusal(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A broker that starts, or whose certificate is renewed, may refuse a worker for a while."""
    _tells(monkeypatch, error)
    with pytest.raises(DependencyUnavailable, match=r"refuses the credentials|not trusted"):
        await connected(_no_connection, _nothing, SASL, again=True)


async def test_a_certificate_that_is_not_trusted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the verifier's reason and the settings that decide."""
    _tells(monkeypatch, _untrusted())
    with pytest.raises(Misconfigured, match=r"not trusted \(self-signed.*kafka\.ca_file"):
        await connected(_no_connection, _nothing, SASL)


async def test_a_broker_that_is_gone_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What secures the connection may be why, and is named."""
    _tells(monkeypatch, ConnectionRefusedError())
    with pytest.raises(DependencyUnavailable, match=r"does not answer.*kafka\.security_protocol"):
        await connected(_no_connection, _nothing, SASL)


async def test_without_security_there_is_nothing_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt, and no word of certificates."""
    asked = _tells(monkeypatch, AssertionError())
    with pytest.raises(DependencyUnavailable) as caught:
        await connected(_no_connection, _nothing, PLAIN)
    assert "certificates" not in caught.value.remedy
    assert asked == []


def test_certificates_that_cannot_be_read_are_named_with_their_setting(tmp_path: Path) -> None:
    """A file that is not there, one without a certificate, a folder."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name, why in (
        ("absent.pem", "No such"),
        ("empty.pem", "no certificate"),
        (".", "Is a dir"),
    ):
        made = PLAIN.model_copy(update={"security_protocol": "SSL", "ca_file": tmp_path / name})
        with pytest.raises(Misconfigured, match=rf"\({why}.*kafka\.ca_file"):
            security(made)
    assert tls.trusting(None, setting="kafka.ca_file").verify_mode is ssl.CERT_REQUIRED


class _Admin:
    """Connects, and answers every question with one error."""

    error: Exception

    def __init__(self, **_: Any) -> None:
        pass

    async def start(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Close."""

    async def list_topics(self) -> list[str]:
        """Answer."""
        raise self.error


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> type[_Admin]:
    """What stands in for aiokafka's admin client."""
    monkeypatch.setattr(kafka_connection, "AIOKafkaAdminClient", _Admin)
    return _Admin


@pytest.mark.parametrize("ask", [kafka_topics.create_topics, kafka_topics.missing_topics])
async def test_topics_that_cannot_be_asked_for_are_an_error_of_ours(
    admin: type[_Admin], ask: Any
) -> None:
    """The library's own would be told as a bug."""
    admin.error = KafkaTimeoutError()
    with pytest.raises(DependencyUnavailable, match=r"does not answer \(KafkaTimeoutError\)"):
        await ask(PLAIN, TopicSettings())


async def test_what_this_user_may_not_ask_is_a_person_s_to_grant(admin: type[_Admin]) -> None:
    """No broker has to be started for that."""
    with pytest.raises(Misconfigured, match=r"refuses this user \(TopicAuthorizationFailed"):
        async with open_admin(PLAIN):
            raise TopicAuthorizationFailedError


async def test_who_gives_up_while_it_connects_leaves_nothing_open() -> None:
    """A client half started holds a socket and tasks until it is collected."""
    began, stopped = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        """A broker that takes the connection and says nothing."""
        began.set()
        await asyncio.sleep(60)

    async def stop() -> None:
        """Note it."""
        stopped.set()

    connecting = asyncio.create_task(connected(start, stop, PLAIN))
    await began.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert stopped.is_set()
