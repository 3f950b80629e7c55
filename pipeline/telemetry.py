"""Structured logs without message text, and trace context across Kafka."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import structlog
from opentelemetry import propagate, trace

from pipeline.headers import Headers, trace_of

_tracer = trace.get_tracer("sluice")

SAY_AGAIN_S: Final = 10.0
"""How long a library's repeated log line is held back."""

_REMEMBERED: Final = 256


class Sparing(logging.Filter):
    """Lets a library say the same thing once in ten seconds, ours always.

    A broker that is away makes its client log a dozen errors a second, which
    hides the line that matters.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._said_s: dict[tuple[str, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let the record through."""
        if record.name.startswith("pipeline"):
            return True
        # A library that logs through structlog hands over its whole event, which is a dict.
        said = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
        key, now_s = (record.name, said), self._now()
        if now_s - self._said_s.get(key, -SAY_AGAIN_S) < SAY_AGAIN_S:
            return False
        if len(self._said_s) >= _REMEMBERED:
            self._said_s.clear()
        self._said_s[key] = now_s
        return True


def configure_logging(level: str, form: Literal["console", "json"]) -> None:
    """Send our events and the libraries' to stderr, as lines for people or as JSON."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                render,
            ],
        )
    )
    handler.addFilter(Sparing())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("pipeline").setLevel(level)
    # It warns of our own back pressure, and prints messages, which hold text.
    logging.getLogger("faust.transport.consumer").setLevel(logging.ERROR)


@contextmanager
def batch_span(batch: Sequence[Headers]) -> Iterator[None]:
    """A span over a batch, linked to each message's trace (OTel messaging conventions)."""
    links = [link for link in map(_link, batch) if link is not None]
    attributes: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.batch.message_count": len(batch),
    }
    with _tracer.start_as_current_span("sluice judge", links=links, attributes=attributes):
        yield


def _link(headers: Headers) -> trace.Link | None:
    if not headers:
        return None
    carrier = {key: value.decode("ascii", "replace") for key, value in trace_of(headers)}
    if not carrier:
        return None
    context = trace.get_current_span(propagate.extract(carrier)).get_span_context()
    return trace.Link(context) if context.is_valid else None
