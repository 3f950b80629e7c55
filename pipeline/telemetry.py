"""Structured logs without message text, and trace context across Kafka."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import structlog
from opentelemetry import propagate, trace

from pipeline.headers import Headers, trace_of

_tracer = trace.get_tracer("sluice")


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
    carrier = {key: value.decode("ascii", "replace") for key, value in trace_of(headers)}
    if not carrier:
        return None
    context = trace.get_current_span(propagate.extract(carrier)).get_span_context()
    return trace.Link(context) if context.is_valid else None
