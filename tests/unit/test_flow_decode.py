"""Specification of the flow, first half: what is judged and what is buried."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from pipeline import codec, headers
from pipeline.errors import DependencyUnavailable, Reason
from pipeline.events import Action, Kind, Status
from pipeline.resources import packaged

from .fakes import JSON_HEADERS, NOON, TOPICS, Bench, json_value, message

AVRO_HEADERS = (("content-type", b"avro/binary"),)


def framed(bench: Bench, text: str = "fine", kind: Kind = Kind.PROMPT, **changed: Any) -> bytes:
    """A message as framed Avro."""
    return codec.encode_message(message(text, kind=kind, **changed), bench.schemas)


async def test_each_message_gets_a_verdict_and_an_audit_event(bench: Bench) -> None:
    """One of each an input, under the same id and key, and every input is acknowledged."""
    flow = bench.flow()
    await flow.judge(bench.batch(flow, "fine", "unsafe", "minor"))
    verdicts = bench.verdicts()
    audits = [codec.decode_audit(r.value or b"", bench.schemas)
              for r in bench.publisher.to(TOPICS.audit)]  # fmt: skip
    assert [v.action for v in verdicts] == [Action.ALLOW, Action.BLOCK, Action.BLOCK]
    assert [v.verdict_id for v in verdicts] == [f"prompts:0:{n}" for n in range(3)]
    assert [a.verdict for a in audits] == verdicts
    assert [r.key for r in bench.publisher.to(TOPICS.verdicts)] == [b"m-0", b"m-1", b"m-2"]
    assert bench.commits.acknowledged == [0, 1, 2]
    assert len(flow.ledger) == 0


async def test_outputs_carry_event_headers_and_the_inputs_trace(bench: Bench) -> None:
    """A consumer can route and trace without decoding."""
    flow = bench.flow()
    given = (*JSON_HEADERS, ("traceparent", b"00-abc"), ("cookie", b"no"))
    await flow.judge([bench.inbound(flow, 0, json_value(), headers=given)])
    for record, type_ in zip(
        bench.publisher.records, ("moderation.verdict.v1", "moderation.audit.v1"), strict=True
    ):
        found = dict(record.headers)
        assert found["ce_id"] == b"prompts:0:0"
        assert found["ce_type"] == type_.encode()
        assert found["ce_source"] == b"sluice/w-1"
        assert found["traceparent"] == b"00-abc"
        assert "cookie" not in found


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON", " application/json ; charset=utf-8"]
)
async def test_the_content_type_says_json(bench: Bench, content_type: str) -> None:
    """Case and parameters of the media type do not matter."""
    flow = bench.flow()
    given = [("Content-Type", content_type.encode())]
    await flow.judge([bench.inbound(flow, 0, json_value(), headers=given)])
    assert len(bench.verdicts()) == 1


@pytest.mark.parametrize("given", [(), AVRO_HEADERS, (("content-type", None),)])
async def test_everything_else_is_framed_avro(bench: Bench, given: Any) -> None:
    """Without a content type, or with a null one, a value is a Confluent frame."""
    flow = bench.flow()
    await flow.judge([bench.inbound(flow, 0, framed(bench), headers=given)])
    assert len(bench.verdicts()) == 1


async def test_a_completion_is_judged_as_one(bench: Bench) -> None:
    """The topic's kind decides the schema, the rules and what the verdict says."""
    flow = bench.flow()
    value = framed(bench, "unsafe", Kind.COMPLETION, prompt="fine")
    await flow.judge([bench.inbound(flow, 0, value, kind=Kind.COMPLETION, headers=AVRO_HEADERS)])
    (verdict,) = bench.verdicts()
    assert (verdict.kind, verdict.action) == (Kind.COMPLETION, Action.BLOCK)


@pytest.mark.parametrize(
    ("value", "given", "reason"),
    [
        (None, JSON_HEADERS, Reason.NULL_VALUE),
        (b"", (), Reason.NOT_FRAMED),
        (b"{}", (), Reason.NOT_FRAMED),
        (b"{}", JSON_HEADERS, Reason.MISSING_FIELD),
        (b"\x00\x00\x00\x10\x92a", (), Reason.UNKNOWN_SCHEMA),
        (json_value(" "), JSON_HEADERS, Reason.EMPTY_TEXT),
        (json_value("x" * 1001), JSON_HEADERS, Reason.OVERSIZE),
        (b"x" * 2001, (), Reason.OVERSIZE),
        (json_value(sent_at=2**62), JSON_HEADERS, Reason.BAD_TIMESTAMP),
    ],
)
async def test_what_cannot_be_judged_becomes_a_dead_letter(
    bench: Bench, value: bytes | None, given: Any, reason: Reason
) -> None:
    """The original bytes and headers, with where they lay and why they died."""
    flow = bench.flow()
    kept = (*given, ("mine", b"\xff"))
    await flow.judge([bench.inbound(flow, 5, value, headers=kept)])
    (record,) = bench.publisher.records
    letter = headers.dead_letter(key=record.key, value=record.value, headers=record.headers)
    assert record.topic == TOPICS.dead_letters
    assert (letter.key, letter.value, letter.headers) == (b"k", value, kept)
    assert (letter.reason, str(letter.position)) == (reason, "prompts:0:5")
    assert (letter.failed_at, letter.attempts) == (NOON, 1)
    assert bench.commits.acknowledged == [5]


async def test_a_value_too_large_for_a_dead_letter_leaves_its_size_and_hash(bench: Bench) -> None:
    """Compression let the broker take it; nothing stops the worker, and nothing is forgotten."""
    flow, value = bench.flow(), b"x" * 4001
    await flow.judge([bench.inbound(flow, 5, value), bench.inbound(flow, 6, json_value())])
    (record,) = bench.publisher.to(TOPICS.dead_letters)
    letter = headers.dead_letter(key=record.key, value=record.value, headers=record.headers)
    assert (letter.value, letter.left_out_bytes) == (None, 4001)
    assert letter.left_out_sha256 == hashlib.sha256(value).hexdigest()
    assert (letter.reason, letter.headers) == (Reason.OVERSIZE, JSON_HEADERS)
    assert bench.commits.acknowledged == [5, 6]


async def test_headers_too_large_for_a_dead_letter_are_left_out(bench: Bench) -> None:
    """What is left still says where the message lies and why it died."""
    flow = bench.flow()
    await flow.judge([bench.inbound(flow, 5, b"junk", headers=[("mine", b"x" * 4001)])])
    (record,) = bench.publisher.records
    letter = headers.dead_letter(key=record.key, value=record.value, headers=record.headers)
    assert (letter.key, letter.value, letter.headers, letter.left_out_bytes) == (None, None, (), 4)
    assert (letter.reason, str(letter.position)) == (Reason.NOT_FRAMED, "prompts:0:5")


async def test_a_dead_letter_that_dies_again_counts_its_attempts(bench: Bench) -> None:
    """A redriven message tells how often it has been here."""
    flow = bench.flow()
    given = [("dlq_attempts", b"3"), ("dlq_reason", b"old")]
    await flow.judge([bench.inbound(flow, 0, None, headers=given)])
    (record,) = bench.publisher.records
    assert dict(record.headers)["dlq_attempts"] == b"4"
    assert [name for name, _ in record.headers].count("dlq_reason") == 1


async def test_a_dead_letter_does_not_take_its_batch_along(bench: Bench) -> None:
    """Neighbours are judged, and all are acknowledged in order."""
    flow = bench.flow()
    batch = [
        bench.inbound(flow, 0, json_value()),
        bench.inbound(flow, 1, b"{"),
        bench.inbound(flow, 2, json_value("unsafe")),
    ]
    await flow.judge(batch)
    assert [v.verdict_id for v in bench.verdicts()] == ["prompts:0:0", "prompts:0:2"]
    assert len(bench.publisher.to(TOPICS.dead_letters)) == 1
    assert bench.commits.acknowledged == [0, 1, 2]


async def test_a_null_traceparent_does_not_stop_the_batch(bench: Bench) -> None:
    """A header without a value is legal in Kafka."""
    flow = bench.flow()
    given = (*JSON_HEADERS, ("traceparent", None), ("tracestate", None))
    await flow.judge([bench.inbound(flow, 0, json_value(), headers=given)])
    assert bench.commits.acknowledged == [0]


async def test_a_text_longer_than_the_guard_reads_is_degraded(bench: Bench) -> None:
    """Its verdict admits what was not seen and takes at least the partial action."""
    flow = bench.flow()
    await flow.judge([bench.inbound(flow, 0, json_value("fine " * 190))])
    (verdict,) = bench.verdicts()
    assert (verdict.status, verdict.action) == (Status.DEGRADED, Action.FLAG)
    assert 0 < verdict.coverage.scanned_tokens < verdict.coverage.total_tokens == 190


def _malformed() -> list[Any]:
    lines = packaged("samples", "malformed.jsonl").read_text().splitlines()
    return [pytest.param(json.loads(line), id=json.loads(line)["name"]) for line in lines]


@pytest.mark.parametrize("case", _malformed())
async def test_every_malformed_sample_ends_exactly_once(bench: Bench, case: Any) -> None:
    """One dead letter, or one verdict with its audit event; and it is acknowledged."""
    flow = bench.flow()
    encoded = case["value_base64"]
    value = None if encoded is None else base64.b64decode(encoded)
    type_ = case["content_type"]
    given = [("content-type", type_.encode())] if type_ else []
    kind = Kind(case["topic"])
    await flow.judge([bench.inbound(flow, 0, value, kind=kind, headers=given)])
    ended = [record.topic for record in bench.publisher.records]
    judged = case["name"] == "json-unknown-tenant"
    assert ended == ([TOPICS.verdicts, TOPICS.audit] if judged else [TOPICS.dead_letters])
    assert bench.commits.acknowledged == [0]


class Registry:
    """A registry that answers by script, and counts who asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def schema(self, schema_id: int) -> str | None:
        """The next answer; an error is raised."""
        self.asked.append(schema_id)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


def foreign(bench: Bench) -> bytes:
    """A prompt framed with an id that only a registry knows."""
    return b"\x00\x00\x00\x10\x92" + framed(bench)[5:]


def prompt_schema() -> str:
    """The prompt's schema, as a registry would return it."""
    from pipeline.resources import shipped

    return shipped("schemas", codec.PROMPT).read_text()


async def test_an_unknown_schema_is_asked_of_the_registry_once(bench: Bench) -> None:
    """Its id is learned: two messages and a later batch need one question."""
    bench.registry = Registry(prompt_schema())
    flow = bench.flow()
    for offsets in ((0, 1), (2,)):
        await flow.judge([bench.inbound(flow, n, foreign(bench), headers=()) for n in offsets])
    assert bench.registry.asked == [4242]
    assert len(bench.verdicts()) == 3


async def test_a_registry_that_is_away_is_waited_for(bench: Bench) -> None:
    """Nothing is buried because the registry did not answer."""
    away = DependencyUnavailable("the registry does not answer", remedy="Start it")
    bench.registry = Registry(away, away, prompt_schema())
    flow = bench.flow()
    await flow.judge([bench.inbound(flow, 0, foreign(bench), headers=())])
    assert len(bench.registry.asked) == 3
    assert len(bench.verdicts()) == 1


@pytest.mark.parametrize("answer", [None, "nonsense", '"string"'])
async def test_a_schema_nobody_has_or_that_is_wrong_buries_the_message(
    bench: Bench, answer: str | None
) -> None:
    """The registry's nonsense costs that message only."""
    bench.registry = Registry(answer)
    flow = bench.flow()
    await flow.judge(
        [bench.inbound(flow, 0, foreign(bench), headers=()), bench.inbound(flow, 1, json_value())]
    )
    assert len(bench.publisher.to(TOPICS.dead_letters)) == 1
    assert len(bench.verdicts()) == 1
