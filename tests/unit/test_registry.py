"""What a schema registry answers, and what is said when it answers otherwise."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.adapters.registry import Registry
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.settings import load

PASSWORD = "do-not-show-this"  # noqa: S105 - nobody's


class _Answers(BaseHTTPRequestHandler):
    """Gives every request the same answer."""

    status = 200
    body = b""

    def do_POST(self) -> None:
        """Answer the same."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _answering(status: int, body: bytes = b"") -> Iterator[Registry]:
    handler = type("_Answers", (_Answers,), {"status": status, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield _registry(server.server_port)
        server.shutdown()


def _registry(port: int) -> Registry:
    url = f"http://127.0.0.1:{port}"
    return Registry(
        load({"registry": {"url": url, "username": "u", "password": PASSWORD}}).registry
    )


@pytest.fixture
def answering() -> Iterator[Callable[..., Registry]]:
    """Makes registries that answer so."""
    with ExitStack() as stack:
        yield lambda *answer: stack.enter_context(_answering(*answer))


@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_that_are_refused_are_a_person_s_to_correct(
    answering: Callable[..., Registry], status: int
) -> None:
    """It answers: starting it would not help. The password stays unsaid."""
    with pytest.raises(Misconfigured, match=rf"refuses this user \(HTTP {status}\)") as caught:
        await answering(status).lookup("prompts-value", "{}")
    assert "registry.username and registry.password" in caught.value.remedy
    assert PASSWORD not in str(caught.value)


async def test_a_refusal_of_one_schema_stops_nobody_who_reads(
    answering: Callable[..., Registry],
) -> None:
    """A record names the id: forbidden it is unknown to us, yet taken; 401 is tried again."""
    assert await answering(403).schema(1) is None
    assert await answering(403).taken(1)
    assert not await answering(404).taken(1)
    with pytest.raises(DependencyUnavailable, match=r"HTTP 401"):
        await answering(401).schema(1)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500,), "HTTP 500"),
        ((200, b"<html>"), "JSONDecodeError"),
        ((200, b"[]"), "its answer has no schema"),
        ((200, b"{}"), "its answer has no schema"),
    ],
)
async def test_another_service_at_its_address_is_no_registry(
    answering: Callable[..., Registry], answer: tuple[object, ...], why: str
) -> None:
    """Worth another try, with the reason."""
    with pytest.raises(DependencyUnavailable, match=rf"does not answer \({why}\)"):
        await answering(*answer).schema(1)


async def test_a_port_that_speaks_no_http_is_no_registry(talker: int) -> None:
    """Its greeting is no answer."""
    with pytest.raises(DependencyUnavailable, match="BadStatusLine"):
        await _registry(talker).schema(1)


async def test_a_certificate_that_is_not_trusted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that names whom to trust."""
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError(untrusted)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(Misconfigured, match=r"not trusted \(self-signed.*SSL_CERT_FILE"):
        await _registry(8081).lookup("prompts-value", "{}")
