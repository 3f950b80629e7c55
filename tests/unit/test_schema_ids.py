"""A configured registry decides under which ids records are written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import orjson
import pytest

from pipeline import codec, schema_ids
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.events import Kind, Message
from pipeline.settings import load

MESSAGE = Message(message_id="m", kind=Kind.PROMPT, text="hello")


class _Registry(BaseHTTPRequestHandler):
    """Knows the ids given by subject, over the two calls of Confluent's REST interface."""

    ids: ClassVar[dict[str, int]] = {}

    def do_POST(self) -> None:
        """Look up the schema of a subject."""
        self.rfile.read(int(self.headers["Content-Length"]))
        schema_id = self.ids.get(self.path.split("/")[2])
        body = {"id": schema_id} if schema_id else {"error_code": 40403, "message": "not found"}
        self.send_response(200 if schema_id else 404)
        self.end_headers()
        self.wfile.write(orjson.dumps(body))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _registry(ids: dict[str, int]) -> Iterator[str]:
    handler = type("_Registry", (_Registry,), {"ids": ids})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _all_ids() -> dict[str, int]:
    subjects = schema_ids.subjects(load().topics).values()
    return {subject: 100 + number for number, subject in enumerate(subjects)}


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
