"""Specification of liveness, readiness and the server that tells them."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import structlog

from pipeline import health as health_module
from pipeline.errors import Misconfigured
from pipeline.health import LIVE_WITHIN_S, Health, HealthServer

from .fakes import FakeClock


@pytest.fixture
def health(clock: FakeClock) -> Health:
    """Two checks, neither made yet."""
    return Health(["guard", "kafka"], now=clock.monotonic)


def test_not_ready_before_every_check_was_made(health: Health) -> None:
    """What was not checked is not assumed to be well."""
    assert health.ready()[0] is False
    health.set("guard", ok=True, detail="answers")
    assert health.ready()[0] is False
    health.set("kafka", ok=True, detail="assigned")
    assert health.ready()[0] is True


def test_readiness_says_what_is_missing(health: Health) -> None:
    """The failing check and its detail are in the body."""
    health.set("guard", ok=False, detail="does not answer")
    ok, body = health.ready()
    assert not ok
    assert body["guard"] == {"ok": False, "detail": "does not answer"}


def test_alive_while_the_loop_turns_whatever_else_fails(health: Health, clock: FakeClock) -> None:
    """A guard outage does not restart the worker; a stuck loop does."""
    health.set("guard", ok=False, detail="away")
    clock.advance(LIVE_WITHIN_S - 0.01)
    assert health.live()[0] is True
    clock.advance(0.02)
    assert health.live()[0] is False
    health.beat()
    assert health.live() == (True, {"heartbeat_age_s": 0.0})


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    """A server on a free port."""
    with HealthServer(health, host="127.0.0.1", port=0) as running:
        yield running


def _get(server: HealthServer, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_server_answers_with_status_and_body(server: HealthServer, health: Health) -> None:
    """200 or 503, and JSON that names the checks."""
    status, body = _get(server, "/readyz")
    assert (status, json.loads(body)["ok"]) == (503, False)
    for name in ("guard", "kafka"):
        health.set(name, ok=True, detail="well")
    status, body = _get(server, "/readyz")
    assert (status, json.loads(body)["checks"]["kafka"]["detail"]) == (200, "well")
    assert _get(server, "/livez")[0] == 200


def test_a_stuck_loop_is_seen_over_http(server: HealthServer, clock: FakeClock) -> None:
    """The server runs in a thread of its own, so it can say so."""
    clock.advance(LIVE_WITHIN_S + 1)
    assert _get(server, "/livez")[0] == 503


def test_metrics_are_served_and_other_paths_are_not(server: HealthServer, health: Health) -> None:
    """Prometheus finds our metrics; a wrong path says which ones exist."""
    health.set("guard", ok=True, detail="answers")
    status, body = _get(server, "/metrics")
    assert status == 200
    assert b'sluice_ready{check="guard"} 1.0' in body
    status, body = _get(server, "/")
    assert (status, body) == (404, b"/livez, /readyz or /metrics\n")


def _silent(server: HealthServer) -> socket.socket:
    """A client that connects and says nothing."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_silent_connection_keeps_no_probe_waiting(server: HealthServer) -> None:
    """Else whoever reaches the port decides when the worker is restarted."""
    with _silent(server), _silent(server) as cut_short:
        cut_short.sendall(b"GET /livez HT")
        assert _get(server, "/livez")[0] == 200
        assert _get(server, "/metrics")[0] == 200


def test_closing_waits_for_no_open_connection(health: Health) -> None:
    """A worker that was asked to end, ends."""
    with HealthServer(health, host="127.0.0.1", port=0) as server, _silent(server):
        assert _get(server, "/livez")[0] == 200
        closing = threading.Thread(target=server.__exit__, args=(None, None, None), daemon=True)
        closing.start()
        closing.join(3)
        assert not closing.is_alive()


def test_a_connection_that_stays_silent_is_closed(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its thread and its descriptor come back, and the log says nothing of it."""
    assert health_module._QuietHandler.timeout == 5.0
    monkeypatch.setattr(health_module._QuietHandler, "timeout", 0.1)
    with _silent(server) as silent:
        assert silent.recv(1) == b""
    assert capfd.readouterr().err == ""


def test_one_connection_too_many_closes_the_oldest(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are held open, threads are bounded and a probe is answered."""
    monkeypatch.setattr(health_module, "MAX_CONNECTIONS", 3)
    with ExitStack() as held:
        silent = [held.enter_context(_silent(server)) for _ in range(9)]
        assert _get(server, "/livez")[0] == 200
        assert [each.recv(1) for each in silent[:6]] == [b""] * 6
        assert len(server._server._open) <= 3  # type: ignore[attr-defined]
        silent[-1].sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert silent[-1].recv(12) == b"HTTP/1.0 200"


def test_a_port_that_is_taken_is_named(server: HealthServer, health: Health) -> None:
    """The address and the setting to change."""
    with pytest.raises(Misconfigured, match=rf"127\.0\.0\.1:{server.port}.*worker\.http_port"):
        HealthServer(health, host="127.0.0.1", port=server.port)


def test_a_change_of_readiness_is_logged_once(health: Health) -> None:
    """The log tells when the guard went and came back, not every check."""
    with structlog.testing.capture_logs() as logs:
        for ok in (True, True, False, False, True):
            health.set("guard", ok=ok, detail="why")
    assert [(log["ok"], log["log_level"]) for log in logs] == [
        (True, "info"), (False, "warning"), (True, "info"),
    ]  # fmt: skip
