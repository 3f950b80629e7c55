"""Specification of logs without locals and spans linked across Kafka."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from opentelemetry import trace

from pipeline import telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())


class Recorder:
    """A tracer that keeps what its spans were started with."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    @contextmanager
    def start_as_current_span(self, name: str, **given: Any) -> Iterator[None]:
        """Write a span down."""
        self.spans.append({"name": name, **given})
        yield


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The tracer in place of the module's."""
    recorder = Recorder()
    monkeypatch.setattr(telemetry, "_tracer", recorder)
    return recorder


def test_a_batch_is_linked_to_each_messages_trace(recorder: Recorder) -> None:
    """One link for each message with a valid trace, none for the others."""
    batch = [(PARENT,), (), (("traceparent", b"junk"),), (PARENT, ("tracestate", b"a=b"))]
    with telemetry.batch_span(batch):
        pass
    (span,) = recorder.spans
    links: list[trace.Link] = span["links"]
    assert [f"{link.context.trace_id:032x}" for link in links] == [TRACE, TRACE]
    assert span["attributes"]["messaging.batch.message_count"] == 4


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"00-" + b"0" * 32])
def test_a_header_that_is_no_trace_is_ignored(recorder: Recorder, value: Any) -> None:
    """Kafka lets a header be null or any bytes: the batch is judged all the same."""
    with telemetry.batch_span([(("traceparent", value),)]):
        pass
    assert recorder.spans[0]["links"] == []


def test_an_error_in_the_batch_passes_through() -> None:
    """The span hides nothing."""
    with pytest.raises(RuntimeError, match="boom"), telemetry.batch_span([]):
        raise RuntimeError("boom")


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """What `configure_logging` changes is put back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    levels = {name: logging.getLogger(name).level for name in ("pipeline", _FAUST)}
    yield
    structlog.reset_defaults()
    root.handlers[:], level = before
    root.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


_FAUST = "faust.transport.consumer"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["console", "json"])
def test_a_logged_error_does_not_show_local_variables(
    form: Any, restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tracebacks are printed without the values in them: those hold message text."""
    telemetry.configure_logging("INFO", form)
    held = "the-text-of-a-" + "message"
    try:
        raise RuntimeError(f"failed after {len(held)} characters")
    except RuntimeError:
        structlog.get_logger("pipeline.test").exception("crashed")
        logging.getLogger("pipeline.other").exception("crashed too")
    written = capsys.readouterr().err
    assert "RuntimeError: failed after 21 characters" in written
    assert "the-text-of-a-message" not in written


def test_json_logs_are_one_document_a_line(
    restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Machines can read level, event and time."""
    telemetry.configure_logging("INFO", "json")
    structlog.get_logger("pipeline.test").info("drained", redelivered=3)
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["redelivered"]) == ("drained", "info", 3)
    assert event["timestamp"].endswith("Z")


def test_the_level_is_kept(restored_logging: None, capsys: pytest.CaptureFixture[str]) -> None:
    """What is below the level is not written; nor is Faust's warning that prints messages."""
    telemetry.configure_logging("WARNING", "console")
    structlog.get_logger("pipeline.test").info("quiet")
    logging.getLogger(_FAUST).warning("a message's text")
    assert capsys.readouterr().err == ""


def test_a_library_that_logs_through_structlog_is_held_back_too() -> None:
    """Its record holds a dict: a retry that is logged must not end the worker."""
    sparing = telemetry.Sparing(now=lambda: 100.0)

    def passes(event: str, **fields: object) -> bool:
        message = {"event": event, **fields}
        return sparing.filter(logging.makeLogRecord({"name": "stamina", "msg": message}))

    assert passes("stamina.retry_scheduled", retry_num=1)
    assert not passes("stamina.retry_scheduled", retry_num=2)
    assert passes("something else")


def test_a_library_repeats_itself_only_every_ten_seconds() -> None:
    """The first of many equal lines passes, and the next after a while; ours always do."""
    now_s = 100.0
    sparing = telemetry.Sparing(now=lambda: now_s)

    def passes(name: str, message: str) -> bool:
        return sparing.filter(logging.makeLogRecord({"name": name, "msg": message}))

    assert passes("aiokafka", "cannot connect %s")
    assert not passes("aiokafka", "cannot connect %s")
    assert passes("aiokafka", "something else")
    assert passes("pipeline.stream", "dead-letter")
    assert passes("pipeline.stream", "dead-letter")
    now_s += telemetry.SAY_AGAIN_S
    assert passes("aiokafka", "cannot connect %s")
