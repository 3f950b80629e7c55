"""A configured registry decides under which ids records are written."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import fastavro
import orjson
import pytest

from pipeline import codec, headers, schema_ids
from pipeline.adapters.registry import Registry
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.events import Kind, Message
from pipeline.resources import shipped
from pipeline.settings import load

from . import replays
from .fakes import TOPICS, Bench

MESSAGE = Message(message_id="m", kind=Kind.PROMPT, text="hello")


class _Registry(BaseHTTPRequestHandler):
    """Knows ids by subject and texts by id, over two calls of Confluent's REST interface."""

    ids: ClassVar[dict[str, int]] = {}
    texts: ClassVar[dict[int, str]] = {}

    def do_GET(self) -> None:
        """Return the schema of an id."""
        text = self.texts.get(int(self.path.split("/")[-1]))
        self._answer({"schema": text} if text else None)

    def do_POST(self) -> None:
        """Look up the schema of a subject."""
        self.rfile.read(int(self.headers["Content-Length"]))
        schema_id = self.ids.get(self.path.split("/")[2])
        self._answer({"id": schema_id} if schema_id else None)

    def _answer(self, body: dict[str, Any] | None) -> None:
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(orjson.dumps(body or {"error_code": 40403, "message": "not found"}))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _registry(ids: dict[str, int], texts: dict[int, str] | None = None) -> Iterator[str]:
    handler = type("_Registry", (_Registry,), {"ids": ids, "texts": {} if texts is None else texts})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _all_ids(first: int = 100) -> dict[str, int]:
    subjects = schema_ids.subjects(load().topics).values()
    return {subject: first + number for number, subject in enumerate(subjects)}


def _foreign() -> dict[str, Any]:
    """A publisher's own schema of a prompt, with a field that ours lacks."""
    schema: dict[str, Any] = orjson.loads(shipped("schemas", codec.PROMPT).read_bytes())
    schema["fields"].insert(0, {"name": "app", "type": "string", "default": ""})
    return schema


def _framed(schema_id: int) -> bytes:
    """A prompt of that publisher."""
    record = {"app": "web", "message_id": "m", "text": "hello"}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(_foreign(), {}), record)
    return b"\x00" + schema_id.to_bytes(4, "big") + out.getvalue()


async def test_records_are_written_under_the_registrys_ids(schemas: codec.Schemas) -> None:
    """The frame carries the registry's id, and reads back."""
    with _registry(_all_ids()) as url:
        await schema_ids.adopt(schemas, load({"registry": {"url": url}}))
    frame = codec.encode_message(MESSAGE, schemas)
    assert codec.frame_id(frame) == 100
    assert codec.decode_avro(frame, Kind.PROMPT, schemas) == MESSAGE


async def test_frames_under_committed_ids_still_decode(schemas: codec.Schemas) -> None:
    """What was published before the registry came is not lost."""
    frame = codec.encode_message(MESSAGE, schemas)
    with _registry(_all_ids()) as url:
        await schema_ids.adopt(schemas, load({"registry": {"url": url}}))
    assert codec.decode_avro(frame, Kind.PROMPT, schemas) == MESSAGE


@pytest.mark.parametrize("schema_id", [1, 3, 7])
async def test_a_shipped_id_that_is_anothers_is_asked_of_the_registry(
    bench: Bench, schema_id: int
) -> None:
    """A publisher's schema has a low id in its registry: its messages are judged."""
    text = orjson.dumps(_foreign()).decode()
    with _registry(_all_ids(), {schema_id: text}) as url:
        settings = load({"registry": {"url": url}})
        await schema_ids.adopt(bench.schemas, settings)
        bench.registry = Registry(settings.registry)
        flow = bench.flow()
        await flow.judge([bench.inbound(flow, 0, _framed(schema_id), headers=())])
    (verdict,) = bench.verdicts()
    assert verdict.message_id == "m"
    assert schema_id in set(bench.schemas.by_id)


async def test_an_id_that_the_registry_gives_away_later_is_asked_for(bench: Bench) -> None:
    """After ours it goes on with 7, which we ship: a worker that runs already asks."""
    texts: dict[int, str] = {}
    with _registry(_all_ids(1), texts) as url:
        settings = load({"registry": {"url": url}})
        await schema_ids.adopt(bench.schemas, settings)
        assert set(bench.schemas.by_id) == {1, 2, 3, 4, 5, 6}
        texts[7] = orjson.dumps(_foreign()).decode()
        bench.registry = Registry(settings.registry)
        flow = bench.flow()
        await flow.judge([bench.inbound(flow, 0, _framed(7), headers=())])
    assert [verdict.message_id for verdict in bench.verdicts()] == ["m"]


@pytest.mark.parametrize("first", [1, 100])
async def test_what_was_written_before_the_registry_came_is_read(
    schemas: codec.Schemas, first: int
) -> None:
    """Audit events under a shipped id stay readable, also where another has the id now."""
    event = replays.event()
    frame = codec.encode_audit(event, schemas)
    assert codec.frame_id(frame) == 7
    text = orjson.dumps(_foreign()).decode()
    for texts in ({}, {7: text}):
        with _registry(_all_ids(first), texts) as url:
            await schema_ids.adopt(schemas, load({"registry": {"url": url}}))
        assert codec.decode_audit(frame, schemas) == event


async def test_an_id_that_stays_free_is_not_asked_for(schemas: codec.Schemas) -> None:
    """Messages under a shipped id cost no question each, where a registry is past it."""
    with _registry(_all_ids()) as url:
        await schema_ids.adopt(schemas, load({"registry": {"url": url}}))
    assert set(range(1, 8)) < set(schemas.by_id)


@pytest.mark.parametrize("text", ["nonsense", '{"type": "object"}'])
async def test_a_shipped_id_that_is_no_avro_in_the_registry_buries_the_message(
    bench: Bench, text: str
) -> None:
    """It is not read by the schema that we ship."""
    frame = codec.encode_message(MESSAGE, bench.schemas)
    with _registry(_all_ids(), {1: text}) as url:
        settings = load({"registry": {"url": url}})
        await schema_ids.adopt(bench.schemas, settings)
        bench.registry = Registry(settings.registry)
        flow = bench.flow()
        await flow.judge([bench.inbound(flow, 0, frame, headers=())])
    (letter,) = bench.publisher.to(TOPICS.dead_letters)
    assert headers.first(letter.headers, headers.DLQ_REASON) == "unknown-schema"
    assert bench.verdicts() == []


async def test_without_a_registry_the_committed_ids_stay(schemas: codec.Schemas) -> None:
    """No registry is asked, and none is needed."""
    await schema_ids.adopt(schemas, load())
    assert codec.frame_id(codec.encode_message(MESSAGE, schemas)) == 1


async def test_a_schema_the_registry_lacks_is_named(schemas: codec.Schemas) -> None:
    """The error says which subject, and what to run."""
    ids = _all_ids()
    del ids["moderation.verdicts.v1-value"]
    with (
        _registry(ids) as url,
        pytest.raises(Misconfigured, match=r"verdicts\.v1-value.*schemas register"),
    ):
        await schema_ids.adopt(schemas, load({"registry": {"url": url}}))


async def test_an_absent_registry_is_named(schemas: codec.Schemas) -> None:
    """Nothing is written under ids that the registry may use for something else."""
    settings = load({"registry": {"url": "http://127.0.0.1:9", "timeout_s": 1}})
    with pytest.raises(DependencyUnavailable, match=r"127\.0\.0\.1:9"):
        await schema_ids.adopt(schemas, settings)
