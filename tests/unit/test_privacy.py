"""No text of a message reaches a log, an error, a metric, a header or a reason."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Sequence
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from pipeline import codec
from pipeline.dead_letters import Bound
from pipeline.errors import DependencyUnavailable, Misconfigured, Rejected
from pipeline.events import Kind
from pipeline.resources import shipped

from .fakes import JSON_HEADERS, TOPICS, Bench, by_words, json_value
from .test_flow_outage import away_for, refuse_poison
from .test_hostile_bytes import ended

MARKER = "MARKED-7f3a-SECRET"
SCHEMAS = codec.load_schemas(shipped("schemas"))
FRAME = b"\x00\x00\x00\x00\x01"


def marked(text: str = "fine", **fields: Any) -> bytes:
    """A JSON prompt whose text holds the marker."""
    return json_value(f"{text} {MARKER}", **fields)


REJECTED: dict[str, tuple[bytes, Sequence[tuple[str, Any]]]] = {
    "not-json": (MARKER.encode(), JSON_HEADERS),
    "cut-json": (marked()[:-3], JSON_HEADERS),
    "json-string": (json.dumps(MARKER).encode(), JSON_HEADERS),
    "not-utf8": (b'{"text": "' + MARKER.encode() + b'\xff"}', JSON_HEADERS),
    "wrong-type": (json.dumps({"message_id": "m", "text": [MARKER]}).encode(), JSON_HEADERS),
    "no-id": (json.dumps({"text": MARKER}).encode(), JSON_HEADERS),
    "bad-time": (marked(sent_at=MARKER), JSON_HEADERS),
    "far-time": (marked(sent_at=2**51), JSON_HEADERS),
    "oversize-text": (marked("x" * 1000), JSON_HEADERS),
    "oversize-value": (marked("x" * 3000), JSON_HEADERS),
    "oversize-id": (marked(message_id=MARKER * 40), JSON_HEADERS),
    "not-framed": (MARKER.encode(), ()),
    "cut-avro": (FRAME + b"\x02m\x7e" + MARKER.encode(), ()),
    "avro-not-utf8": (FRAME + b"\x02m\x28" + MARKER.encode() + b"\xff\xff", ()),
    "poison": (marked("poison"), JSON_HEADERS),
}


class Watch:
    """Everything that was said while a test ran, and that it holds no marker."""

    def __init__(self, bench: Bench, logs: list[Any], caplog: pytest.LogCaptureFixture) -> None:
        self.bench, self.logs, self.caplog = bench, logs, caplog

    def said(self) -> str:
        """Logs, errors, metrics, headers and reasons as one text."""
        headers = [r.headers for r in self.bench.publisher.records]
        errors = ["".join(traceback.format_exception(e)) for e in self.bench.crashes]
        reasons = [v.reason for v in self.bench.verdicts()]
        metrics = generate_latest().decode()
        return repr([self.logs, self.caplog.text, headers, errors, reasons]) + metrics


@pytest.fixture
def watch(bench: Bench, caplog: pytest.LogCaptureFixture) -> Any:
    """Records logs of every level for the length of a test."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        yield Watch(bench, logs, caplog)


async def test_success_says_nothing_of_the_text(watch: Watch) -> None:
    """Allowed, blocked and partly scanned messages; only `plain` retention keeps text."""
    bench, flow = watch.bench, watch.bench.flow()
    texts = ("fine", "unsafe", "minor", "fine " * 150)
    await flow.judge([bench.inbound(flow, n, marked(t)) for n, t in enumerate(texts)])
    assert len(bench.verdicts()) == 4
    assert MARKER not in watch.said()
    assert not any(MARKER.encode() in (r.value or b"") for r in bench.publisher.records)


async def test_plain_retention_keeps_text_in_the_audit_topic_only(watch: Watch) -> None:
    """The tenant that asked for it finds its text there and nowhere else."""
    bench, flow = watch.bench, watch.bench.flow()
    await flow.judge([bench.inbound(flow, 0, marked(tenant="acme"))])
    holding = [r.topic for r in bench.publisher.records if MARKER.encode() in (r.value or b"")]
    assert holding == [TOPICS.audit]
    assert MARKER not in watch.said()


@pytest.mark.parametrize("name", list(REJECTED))
async def test_rejection_says_nothing_of_the_text(watch: Watch, name: str) -> None:
    """A dead letter keeps the value as it was; its headers and our log do not quote it."""
    bench = watch.bench
    bench.classifier.scripts = [refuse_poison]
    flow = bench.flow()
    value, headers = REJECTED[name]
    await flow.judge([bench.inbound(flow, 0, value, headers=headers)])
    (letter,) = bench.publisher.records
    assert letter.topic == TOPICS.dead_letters
    assert letter.value == value
    assert MARKER not in watch.said()
    assert any(log["event"] == "dead-letter" for log in watch.logs)


async def test_failure_says_nothing_of_the_text(watch: Watch) -> None:
    """A guard that is away, a broker that fails, a message that is degraded."""
    bench = watch.bench
    bench.classifier.scripts = [away_for(bench, 3.0)] * 3 + [by_words]
    bench.publisher.failures = [DependencyUnavailable("no answer", remedy="Start it")] * 2
    flow = bench.flow()
    bench.health.set("guard", ok=True, detail="answers")
    batch = [bench.inbound(flow, n, marked(tenant=t)) for n, t in enumerate(("kids", "demo"))]
    await flow.judge(batch)
    assert len(bench.verdicts()) == 2
    assert watch.logs
    assert MARKER not in watch.said()


@pytest.mark.parametrize("cause", ["publish", "limit", "guard"])
async def test_a_crash_says_nothing_of_the_text(watch: Watch, cause: str) -> None:
    """The error that stops the worker, with its whole traceback, quotes nothing."""
    bench = watch.bench
    never = Misconfigured("refused", remedy="Grant it")
    if cause == "publish":
        bench.publisher.failures = [never]
    if cause == "guard":
        bench.classifier.scripts = [lambda _: never]
    bench.bound = Bound(window=9, count=1, ratio=0.1) if cause == "limit" else bench.bound
    flow = bench.flow()
    value = marked()[:-3] if cause == "limit" else marked()
    await flow.conveyor._run([bench.inbound(flow, 0, value)])
    assert len(bench.crashes) == 1
    assert MARKER not in watch.said()


@given(st.binary(max_size=20), st.binary(max_size=20), st.sampled_from(Kind), st.booleans())
def test_no_decoding_error_quotes_its_value(
    before: bytes, after: bytes, kind: Kind, as_json: bool
) -> None:
    """Whatever surrounds the text, the error that rejects it holds none of it."""
    value = before + MARKER.encode() + after

    def decode() -> object:
        if as_json:
            return codec.decode_json(value, kind)
        return codec.decode_avro(FRAME + value, kind, SCHEMAS)

    end = ended(decode)
    if isinstance(end, Rejected):
        assert MARKER not in "".join(traceback.format_exception(end))
        assert MARKER not in repr(end.args)


async def test_the_watch_would_notice(watch: Watch) -> None:
    """The checks above can fail: a marker in a log line or an error is found."""
    assert MARKER not in watch.said()
    watch.bench.crashes.append(ValueError(MARKER))
    assert MARKER in watch.said()
    watch.bench.crashes.clear()
    structlog.get_logger("pipeline.stream").info("said", text=MARKER)
    assert MARKER in watch.said()
