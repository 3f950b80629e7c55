"""Is it alive, is it ready: answered over HTTP, beside the metrics.

`/livez` says that the event loop turns and depends on nothing else: a Triton
outage must not restart every worker. `/readyz` says what is missing. Served
from a thread, so that a blocked loop is seen and not shared.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Final, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
import structlog
from prometheus_client import make_wsgi_app

from pipeline import metrics
from pipeline.errors import Misconfigured

log = structlog.get_logger(__name__)

LIVE_WITHIN_S: Final = 10.0
"""A loop that has not turned for this long is stuck."""
MAX_CONNECTIONS: Final = 64
"""More than probes and scrapers open; each costs a thread and a descriptor."""
SILENT_FOR_S: Final = 5.0
"""A connection on which nothing moves for this long is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing readiness depends on."""

    ok: bool
    detail: str


_UNCHECKED: Final = Check(ok=False, detail="not yet checked")


class Health:
    """The heart beat and the checks; written by the loop, read by the server's thread."""

    def __init__(self, names: Iterable[str], now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._beat_s = now()
        self._checks: dict[str, Check | None] = dict.fromkeys(names)
        for name in self._checks:
            metrics.READY.labels(name).set(0)

    def beat(self) -> None:
        """The loop turned."""
        self._beat_s = self._now()

    def set(self, name: str, *, ok: bool, detail: str) -> None:
        """Record a check's state; a change is logged, once."""
        before = self._checks.get(name)
        self._checks[name] = Check(ok=ok, detail=detail)
        metrics.READY.labels(name).set(ok)
        if before is None or before.ok != ok:
            log.log(logging.INFO if ok else logging.WARNING, "check", name=name, ok=ok, why=detail)

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop turns, and how long ago it did."""
        age_s = self._now() - self._beat_s
        return age_s < LIVE_WITHIN_S, {"heartbeat_age_s": round(age_s, 3)}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether every check passes, and each one's state."""
        checks = {name: check or _UNCHECKED for name, check in self._checks.items()}
        body = {name: {"ok": check.ok, "detail": check.detail} for name, check in checks.items()}
        return all(check.ok for check in checks.values()), body


class HealthServer:
    """Serves `/livez`, `/readyz` and `/metrics`; a context manager."""

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        self._health = health
        self._metrics = make_wsgi_app()
        try:
            self._server: WSGIServer = make_server(
                host, port, self._answer, server_class=_Server, handler_class=_QuietHandler
            )
        except OSError as error:
            raise Misconfigured(
                f"the health server cannot listen on {host}:{port} ({error.strerror})",
                remedy="Set worker.http_port to a free port, or to 0 for any",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def __enter__(self) -> Self:
        """Start answering."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop answering; a connection still open is not waited for."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start_response)  # type: ignore[no-any-return]
        if path not in ("/livez", "/readyz"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/livez, /readyz or /metrics\n"]
        ok, body = self._health.live() if path == "/livez" else self._health.ready()
        status = "200 OK" if ok else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [orjson.dumps({"ok": ok, "checks": body}) + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection; one too many closes the oldest, so a probe gets through."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection from a thread of its own."""
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                _hang_up(self._open.pop(0))
            self._open.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and count it no longer."""
        with self._lock:
            if request in self._open:
                self._open.remove(request)
        super().shutdown_request(request)


def _hang_up(connection: socket.socket) -> None:
    """Make the thread that waits on a connection end; it closes the connection itself."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _QuietHandler(WSGIRequestHandler):
    """Keeps probes out of the log, and waits for no silent client."""

    timeout = SILENT_FOR_S

    def handle(self) -> None:
        """Answer one request; a client that falls silent or goes away is no error."""
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
