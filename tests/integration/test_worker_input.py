"""Whatever is published ends as exactly one accountable outcome."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record._crc32c import crc

from pipeline import codec, headers, samples
from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.stack import EmbeddedWorker
from pipeline.events import (
    Action,
    Coverage,
    DeadLetter,
    Kind,
    Message,
    PolicyRef,
    Position,
    Status,
    Verdict,
)  # fmt: skip
from pipeline.headers import Headers
from pipeline.ports import Outgoing
from tests.support import places
from tests.support.places import JSON, MARKER, SCHEMAS, Place

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE: Headers = (("traceparent", TRACEPARENT), ("tracestate", b"vendor=1"))
SAMPLES = {
    "garbage-bytes": "not-framed",
    "garbage-no-content-type": "not-framed",
    "empty-value": "not-framed",
    "null-value": "null-value",
    "unknown-schema-id": "unknown-schema",
    "truncated-avro": "bad-avro",
    "short-frame": "not-framed",
    "json-invalid-utf8": "bad-encoding",
    "json-broken": "bad-json",
    "json-not-an-object": "bad-json",
    "json-missing-message-id": "missing-field",
    "json-text-wrong-type": "wrong-type",
    "json-sent-at-2126": "bad-timestamp",
    "json-unknown-tenant": None,
    "json-empty-text": "empty-text",
    "json-labelled-avro": "not-framed",
}
"""The reason of each shipped sample's dead letter; None: it gets a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A record to publish, and the reason of its dead letter; None: a verdict."""

    name: str
    record: Outgoing
    reason: str | None


@pytest.fixture(scope="module")
async def place(
    kafka: EmbeddedKafka, triton: EmbeddedTriton, tiny_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Place]:  # fmt: skip
    """Topics that the tests of this module share."""
    folder = tmp_path_factory.mktemp("input")
    async with places.open_place(
        folder, kafka=kafka.bootstrap_servers, triton=triton.grpc_address,
        repository=tiny_repository,
    ) as opened:  # fmt: skip
        yield opened


@pytest.fixture(scope="module")
async def worker(place: Place) -> EmbeddedWorker:
    """The one worker of this module; it must survive all of it."""
    return await place.start_worker()


def _shipped(place: Place) -> Iterator[Case]:
    for sample in samples.malformed():
        record = place.raw(
            sample.value, kind=sample.kind, key=sample.key,
            headers=(*sample.headers, ("x-odd", b"\xff\x00"), ("x-odd", b"twice")),
        )  # fmt: skip
        yield Case(name=sample.name, record=record, reason=SAMPLES[sample.name])


def _verdict_frame() -> bytes:
    now = datetime.now(UTC)
    verdict = Verdict(
        verdict_id="a:0:1", message_id="m", conversation_id=None, tenant="", kind=Kind.PROMPT,
        action=Action.ALLOW, status=Status.SCORED, reason=MARKER, taxonomy="t", scores={},
        flagged=(), coverage=Coverage(scanned_tokens=1, total_tokens=1), guards=(),
        policy=PolicyRef(id="p", version="1", digest="d"), received_at=now, scored_at=now,
        emitted_at=now, source=Position(topic="a", partition=0, offset=1),
    )  # fmt: skip
    return codec.encode_verdict(verdict, SCHEMAS)


def _json(**fields: object) -> bytes:
    return orjson.dumps({"message_id": "m-json", "text": f"text {MARKER}"} | fields)


def _avro(text: str, kind: Kind = Kind.PROMPT) -> bytes:
    return codec.encode_message(Message(message_id="m", kind=kind, text=text), SCHEMAS)


def _surrogate_avro() -> bytes:
    """A framed prompt in whose text three characters are the bytes of a lone surrogate."""
    return _avro(f"@@@ {MARKER}").replace(b"@@@", b"\xed\xa0\x80")


_HOSTILE_JSON: dict[str, tuple[bytes, str | None]] = {
    "5 MB of JSON": (_json(text=MARKER + "a" * 5_000_000), "oversize"),
    "5 MB of prompt": (_json(prompt=MARKER + "a" * 5_000_000), "oversize"),
    "1,000 junk fields": (orjson.dumps({f"{MARKER}{n}": n for n in range(1000)}), "missing-field"),
    "1,000 more fields": (_json(**{f"{MARKER}{n}": [n] for n in range(1000)}), None),
    "nested too deeply": (b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad-json"),
    "nested deeply": (_json(extra=orjson.Fragment(b"[" * 500 + b"]" * 500)), None),
    "text nested": (_json(text={"text": MARKER}), "wrong-type"),
    "NUL in the text": (_json(text=f"a\0b {MARKER}"), None),
    "NUL in the id": (_json(message_id="a\0b"), None),
    "raw NUL in JSON": (b'{"message_id":"m","text":"a\0b"}', "bad-json"),
    "escaped lone surrogate": (b'{"message_id":"m","text":"a\\ud800b"}', "bad-json"),
    "escaped lone surrogate in the id": (b'{"message_id":"\\udfff","text":"a"}', "bad-json"),
    "not a number": (_json(sent_at=orjson.Fragment(b"NaN")), "bad-json"),
    "a time in words": (_json(sent_at="yesterday"), "bad-timestamp"),
    "a time beyond the calendar": (_json(sent_at=2**62), "bad-timestamp"),
    "an id of a megabyte": (_json(message_id="a" * 1_000_000), "oversize"),
    "only white space": (_json(text=" \n\t\u2003"), "empty-text"),
    "an empty id": (_json(message_id=""), "missing-field"),
    "a field twice": (b'{"message_id":"m","text":"a","text":"b"}', None),
    "null text": (_json(text=None), "missing-field"),
}


def _hostile(place: Place) -> Iterator[Case]:
    for name, (value, reason) in _HOSTILE_JSON.items():
        yield Case(name=name, record=place.raw(value, headers=JSON), reason=reason)
    future = datetime.now(UTC) + timedelta(days=40_000)
    for name, record, reason in (
        ("5 MB of Avro", place.record("a" * 5_000_000), "oversize"),
        ("no id", place.record("a", message_id=""), "missing-field"),
        ("far future", place.record("a", sent_at=future), "bad-timestamp"),
        ("long past", place.record("a", sent_at=datetime(1970, 1, 1, tzinfo=UTC)), None),
        ("unknown tenant", place.record("a", tenant="nobody-knows"), None),
        ("empty text", place.raw(_avro("")), "empty-text"),
        ("a verdict as a prompt", place.raw(_verdict_frame()), "bad-avro"),
        ("NUL bytes", place.raw(b"\0" * 64), "unknown-schema"),
        ("NUL key", place.record("a", key=b"\0\0"), None),
        ("surrogate in Avro", place.raw(_surrogate_avro()), "bad-encoding"),
        ("no key", place.raw(b"?", key=None), "not-framed"),
        ("an empty key", place.raw(b"?", key=b""), "not-framed"),
        ("completion as prompt", place.raw(_avro("a", kind=Kind.COMPLETION)), "bad-avro"),
        ("trailing bytes", place.raw(_avro("a") + b"\0"), "bad-avro"),
        ("odd content type", place.raw(b"{", headers=(("content-type", b"\xff"),)), "not-framed"),
    ):  # fmt: skip
        yield Case(name=name, record=record, reason=reason)


async def test_each_bad_input_ends_once_with_its_reason(
    place: Place, worker: EmbeddedWorker
) -> None:
    """One outcome each; key, value and headers of a dead letter are the input's, byte for byte."""
    cases = [*_shipped(place), *_hostile(place)]
    positions = await place.publish(case.record for case in cases)
    found = await place.settled(positions)
    problems = [
        f"{case.name}: {problem}"
        for case, position in zip(cases, positions, strict=True)
        for problem in _problems(case, found[position])
    ]
    assert problems == []
    (after,) = await place.texts("still here")
    await place.settled([after])
    assert worker.status is None


def _problems(case: Case, outcomes: list[Verdict | DeadLetter]) -> Iterator[str]:
    if len(outcomes) != 1:
        yield f"{len(outcomes)} outcomes"
    outcome, record = outcomes[0], case.record
    if not isinstance(outcome, DeadLetter):
        if case.reason is not None:
            yield f"a verdict, not {case.reason}"
        return
    if outcome.reason != case.reason:
        yield f"{outcome.reason} ({outcome.detail}), not {case.reason}"
    if (outcome.key, outcome.value, outcome.headers) != (record.key, record.value, record.headers):
        yield f"altered: {outcome.key!r} {outcome.headers}"
    if MARKER in outcome.detail:
        yield "its detail tells the text"


async def test_what_only_compression_let_in_leaves_its_size_and_hash(
    place: Place, worker: EmbeddedWorker
) -> None:
    """The broker bounds what it stores; a refused giant must not stop the worker that meets it."""
    value = _json(text=f"the same line again {MARKER} " * 400_000)
    assert len(value) > place.settings.topics.max_message_bytes
    async with AIOKafkaProducer(
        bootstrap_servers=place.settings.kafka.bootstrap_servers,
        compression_type="zstd",
        max_request_size=2 * len(value),
    ) as producer:
        at = await producer.send_and_wait(place.topic(Kind.PROMPT), value, headers=list(JSON))
    position = Position(topic=at.topic, partition=at.partition, offset=at.offset)
    (letter,) = (await place.settled([position]))[position]
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.value, letter.headers) == ("oversize", None, JSON)
    assert letter.left_out_bytes == len(value)
    assert letter.left_out_sha256 == hashlib.sha256(value).hexdigest()
    await place.settled(await place.texts("still here"))
    assert worker.status is None


async def test_a_header_whose_name_is_no_utf8_stops_nobody(
    place: Place, worker: EmbeddedWorker
) -> None:
    """It comes among others of its batch; each has its outcome, and the worker goes on."""
    values = [_json(message_id=f"odd-{number}") for number in range(3)] + [b"?"]
    async with AIOKafkaProducer(
        bootstrap_servers=place.settings.kafka.bootstrap_servers
    ) as producer:
        batch = producer.create_batch()
        for number, value in enumerate(values):
            odd = [("HHHH", b"x")] if number in {1, 3} else []
            batch.append(key=None, value=value, timestamp=None, headers=[*JSON, *odd])
        raw = bytearray(batch._build()).replace(b"HHHH", b"\xff\xfe-x")
        raw[17:21] = struct.pack(">I", crc(bytes(raw[21:])))  # KIP-98: what follows its checksum
        batch._buffer = raw
        sent = await producer.send_batch(batch, place.topic(Kind.PROMPT), partition=0)
        first = await sent
    positions = [
        Position(topic=first.topic, partition=0, offset=first.offset + number)
        for number in range(4)
    ]
    found = await place.settled(positions)
    assert [type(found[at][0]) for at in positions] == [Verdict, Verdict, Verdict, DeadLetter]
    letter = found[positions[3]][0]
    assert isinstance(letter, DeadLetter)
    assert letter.headers == (*JSON, ("\\xff\\xfe-x", b"x"))
    assert worker.status is None


async def test_trace_and_event_headers_go_with_each_outcome(
    place: Place, worker: EmbeddedWorker
) -> None:
    """Verdict, audit event and dead letter carry the trace; the key is the message's id."""
    records = [
        place.record("a", message_id="m-traced", key=b"conversation", headers=TRACE),
        place.raw(b"?", key=b"bad", headers=TRACE),
    ]
    at, bad = await place.publish(records)
    await place.settled([at, bad])
    named = place.settings.topics
    for topic, type_ in (
        (named.verdicts, b"moderation.verdict.v1"), (named.audit, b"moderation.audit.v1"),
    ):  # fmt: skip
        (record,) = [r for r in await place.read(topic) if r.key == b"m-traced"]
        stamped = dict(record.headers)
        time = datetime.fromisoformat(stamped.pop("ce_time").decode())
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
        assert stamped == {
            "ce_id": str(at).encode(), "ce_type": type_, "ce_source": b"sluice/worker-1",
            "ce_specversion": b"1.0", "content-type": b"avro/binary",
            "traceparent": TRACEPARENT, "tracestate": b"vendor=1",
        }  # fmt: skip
    (letter,) = [each for each in await place.letters() if each.position == bad]
    assert letter.headers == TRACE
    assert letter.key == b"bad"


async def test_the_partition_of_an_outcome_follows_its_message_id(
    place: Place, worker: EmbeddedWorker
) -> None:
    """Verdicts and audit events of one message id are in the same order for every reader."""
    positions = await place.publish(
        place.record(f"number {n}", message_id=f"same-{n % 3}", key=b"c") for n in range(12)
    )
    await place.settled(positions)
    for topic in (place.settings.topics.verdicts, place.settings.topics.audit):
        records = [r for r in await place.read(topic) if (r.key or b"").startswith(b"same-")]
        assert len(records) == 12
        assert len({(record.key, record.partition) for record in records}) == 3


async def test_a_policy_may_refuse_tenants_it_does_not_know(
    kafka: EmbeddedKafka, triton: EmbeddedTriton, tiny_repository: Path, tmp_path: Path
) -> None:
    """With unknown_tenant = 'reject' they end as dead letters; others have verdicts."""
    policy = tmp_path / "strict.toml"
    policy.write_text(
        'id = "strict"\nversion = "1"\nunknown_tenant = "reject"\n'
        "[default.prompt]\nunsafe = { block = 0.5 }\n[tenants.known]\n"
    )
    async with places.open_place(
        tmp_path, kafka=kafka.bootstrap_servers, triton=triton.grpc_address,
        repository=tiny_repository, SLUICE_POLICY__FILE=str(policy),
    ) as own:  # fmt: skip
        await own.start_worker()
        (known,) = await own.texts("a", tenant="known")
        (nobody,) = await own.texts("a", tenant=f"nobody-{MARKER}")
        found = await own.settled([known, nobody])
    assert isinstance(found[known][0], Verdict)
    letter = found[nobody][0]
    assert isinstance(letter, DeadLetter)
    assert letter.reason == "unknown-tenant"
    assert headers.first(letter.headers, "dlq_reason") is None


async def test_a_repeated_content_has_a_verdict_of_its_own_and_no_guard_call(
    kafka: EmbeddedKafka, triton: EmbeddedTriton, tiny_repository: Path, tmp_path: Path
) -> None:
    """The same scores by the same guard; the audit event says that no rows were computed."""
    async with places.open_place(
        tmp_path, kafka=kafka.bootstrap_servers, triton=triton.grpc_address,
        repository=tiny_repository, SLUICE_GUARDS__CACHE_ENTRIES="10",
    ) as own:  # fmt: skip
        worker = await own.start_worker()
        (first,) = await own.texts("full of hate")
        await own.settled([first])
        (again,) = await own.texts("full of hate", tenant="acme")
        (other,) = await own.publish([own.record("full of hate", kind=Kind.COMPLETION)])
        await own.settled([again, other])
        events = {event.verdict.source: event for event in await own.audits()}
        answers = await places.metric(worker, "sluice_score_cache_total")
    assert answers == {("hit",): 1.0, ("miss",): 2.0}
    assert [events[at].batch_rows for at in (first, again, other)] == [1, 0, 1]
    assert events[again].inference_s == events[again].queued_s == 0.0
    verdicts = [events[at].verdict for at in (first, again)]
    assert verdicts[0].scores == verdicts[1].scores
    assert verdicts[0].guards == verdicts[1].guards
    assert [verdict.tenant for verdict in verdicts] == ["", "acme"]
