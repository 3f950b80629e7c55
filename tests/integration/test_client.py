"""The Python client against a real broker; a few lines stand in for the worker."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from pipeline import codec, headers
from pipeline.adapters.kafka import KafkaPublisher, KafkaReader, Record
from pipeline.client import Client
from pipeline.dedupe import Deduplicator
from pipeline.embedded import EmbeddedKafka
from pipeline.errors import DeadLettered, DependencyUnavailable, Misconfigured, Rejected
from pipeline.events import Action, Kind
from pipeline.ports import Outgoing
from pipeline.ranges import Edge, Range
from pipeline.settings import Settings, load
from tests.support.answering import SCHEMAS, own_topics, worker

pytestmark = pytest.mark.timeout(120)

EVERYTHING = Range(start=Edge.START, end=Edge.END)
TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.fixture
async def settings(kafka: EmbeddedKafka) -> Settings:
    """Five topics of the test's own."""
    return await own_topics(kafka.bootstrap_servers)


async def published(settings: Settings, topic: str) -> list[Record]:
    """Everything a topic holds."""
    async with KafkaReader(settings.kafka) as reader:
        return [record async for record in reader.read(topic, await reader.bounds(topic))]


async def test_a_prompt_comes_back_as_its_verdict(settings: Settings) -> None:
    """The verdict is that of the position where the prompt was published."""
    async with worker(settings), Client(settings) as client:
        verdict = await client.moderate(client.prompt("bad", tenant="acme"))
    assert (verdict.action, verdict.tenant) == (Action.BLOCK, "acme")
    assert verdict.source.topic == settings.topics.prompts


async def test_equal_message_ids_get_their_own_verdicts(settings: Settings) -> None:
    """Position decides, also between messages in flight under one id."""
    texts = ["good", "bad"] * 20
    async with worker(settings, times=2), Client(settings) as client:
        verdicts = await asyncio.gather(
            *(client.moderate(client.prompt(text, message_id="same")) for text in texts)
        )
    assert [verdict.action is Action.BLOCK for verdict in verdicts] == [
        text == "bad" for text in texts
    ]
    assert len({verdict.verdict_id for verdict in verdicts}) == len(texts)


async def test_a_dead_letter_ends_the_wait(settings: Settings) -> None:
    """It is an error with the worker's reason and explanation."""
    async with worker(settings), Client(settings) as client:
        with pytest.raises(DeadLettered, match="the text is empty") as caught:
            await client.moderate(client.prompt(""))
    assert caught.value.reason == "empty-text"


async def test_without_a_worker_the_wait_ends_in_time(settings: Settings) -> None:
    """The error names the message, where it was published, and what to check."""
    async with Client(settings) as client:
        with pytest.raises(DependencyUnavailable, match=rf"{settings.topics.prompts}:\d:0") as no:
            await client.moderate(client.prompt("x", message_id="m-7"), timeout_s=0.5)
    assert "m-7" in str(no.value)
    assert "sluice doctor" in no.value.remedy


async def test_a_published_message_carries_headers_and_key(settings: Settings) -> None:
    """CloudEvents, trace context, content type; the conversation is the key; time is stamped."""
    async with Client(settings, watch=False) as client:
        message = client.prompt("hi", message_id="m-1", conversation_id="c-1")
        position = await client.publish(message, headers=(TRACE, ("other", b"x")))
    (record,) = await published(settings, settings.topics.prompts)
    assert str(position) == f"{record.topic}:{record.partition}:{record.offset}"
    assert record.key == b"c-1"
    assert record.headers[:2] == (("ce_id", b"m-1"), ("ce_type", b"moderation.prompt.v1"))
    assert record.headers[-2:] == (("content-type", b"avro/binary"), TRACE)
    decoded = codec.decode_avro(record.value or b"", Kind.PROMPT, SCHEMAS)
    assert decoded.sent_at is not None


async def test_json_says_that_it_is_json(settings: Settings) -> None:
    """With `wire="json"` the worker's JSON decoder reads the same message."""
    async with Client(settings, watch=False, wire="json") as client:
        message = client.completion("hi", prompt="hello?", sent_at=datetime(2026, 1, 2, tzinfo=UTC))
        await client.publish(message)
    (record,) = await published(settings, settings.topics.completions)
    assert headers.first(record.headers, "content-type") == "application/json"
    assert codec.decode_json(record.value or b"", Kind.COMPLETION) == message


async def test_raw_bytes_go_out_untouched(settings: Settings) -> None:
    """Also a null value, which needs a key."""
    async with Client(settings, watch=False) as client:
        await client.publish_raw(Kind.PROMPT, b"\xff", key=None, headers=(("a", b"b"),))
        await client.publish_raw(Kind.PROMPT, None, key=b"k")
        with pytest.raises(Misconfigured):
            await client.publish_raw(Kind.PROMPT, None, key=None)
    records = await published(settings, settings.topics.prompts)
    found = {(record.key, record.value, record.headers) for record in records}
    assert found == {(None, b"\xff", (("a", b"b"),)), (b"k", None, ())}


async def test_what_kafka_cannot_take_is_rejected_before(settings: Settings) -> None:
    """Too large, a lone surrogate, a time without a zone: the error says so."""
    async with Client(settings, watch=False) as client:
        for message, why in (
            (client.prompt("x" * 9_000_000), "Kafka takes"),
            (client.prompt("\ud800"), "surrogate"),
            (client.prompt("x", sent_at=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001
        ):
            with pytest.raises(Rejected, match=why):
                await client.publish(message)


async def test_verdicts_are_iterated_without_repeats(settings: Settings) -> None:
    """Each outcome arrives three times; the range and the stream show it once."""
    dedupe = Deduplicator()
    async with worker(settings, times=3), Client(settings) as client:
        sent = [await client.moderate(client.prompt(f"m{n}")) for n in range(5)]
        async with aclosing(client.verdicts(dedupe=dedupe)) as stream:
            followed = [await anext(stream) for _ in range(5)]
        last = await client.moderate(client.prompt("last"))
    async with Client(settings, watch=False) as client:
        everything = [verdict async for verdict in client.verdicts(EVERYTHING)]
    ids = {verdict.verdict_id for verdict in sent}
    assert {verdict.verdict_id for verdict in followed} == ids
    assert len(everything) == 6
    assert {verdict.verdict_id for verdict in everything} == ids | {last.verdict_id}


async def test_a_time_range_bounds_what_is_read(settings: Settings) -> None:
    """Kafka's timestamps cut between two verdicts."""
    async with worker(settings), Client(settings) as client:
        first = await client.moderate(client.prompt("first"))
        await asyncio.sleep(0.05)  # so that the two stamps differ
        second = await client.moderate(client.prompt("second"))
        cut = round(second.emitted_at.timestamp() * 1000) - 20
        old = [v async for v in client.verdicts(Range(start=Edge.START, end=cut))]
        new = [v async for v in client.verdicts(Range(start=cut, end=Edge.END))]
    assert (old, new) == ([first], [second])


async def test_a_record_that_is_no_verdict_is_passed_over(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Junk on the verdict topic is logged by position and does not stop the stream."""
    junk = Outgoing(topic=settings.topics.verdicts, key=b"k", value=b"junk", headers=())
    async with KafkaPublisher(settings.kafka, max_message_bytes=1000) as publisher:
        await publisher.publish([junk])
    async with worker(settings), Client(settings) as client:
        await client.moderate(client.prompt("fine"))
        assert len([v async for v in client.verdicts(EVERYTHING)]) == 1
    assert f"{settings.topics.verdicts}:" in caplog.text
    assert "junk" not in caplog.text


async def test_a_missing_topic_is_named(kafka: EmbeddedKafka) -> None:
    """The client says which, and how to create it."""
    settings = load(
        {
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "topics": {"verdicts": "no-such-topic"},
        }
    )
    with pytest.raises(Misconfigured, match="no-such-topic"):
        async with Client(settings):
            pass


async def test_a_broker_that_is_away_is_named() -> None:
    """By its address, within seconds."""
    with pytest.raises(DependencyUnavailable, match=r"127\.0\.0\.1:1 does not answer"):
        async with asyncio.timeout(15), Client("127.0.0.1:1"):
            pass


async def test_closing_ends_the_waits(settings: Settings) -> None:
    """A wait that is left when the client closes ends with an error at once."""
    async with Client(settings) as client:
        waiting = await client.submit(client.prompt("x"), timeout_s=60)
    with pytest.raises(Misconfigured, match="closed"):
        await waiting
