"""The sample traffic that ships: what the demo publishes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from pipeline.events import Kind, Message
from pipeline.headers import CONTENT_TYPE, Headers
from pipeline.resources import packaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """Bytes no worker can decode, or can but must refuse; `why` says which."""

    name: str
    why: str
    kind: Kind
    key: bytes | None
    value: bytes | None
    headers: Headers


def traffic() -> Iterator[Message]:
    """A few hundred prompts and completions, in the order of their conversations."""
    for line in packaged("samples", "traffic.jsonl").read_bytes().splitlines():
        given = orjson.loads(line)
        yield Message(
            message_id=given["message_id"],
            kind=Kind(given["kind"]),
            text=given["text"],
            conversation_id=given["conversation_id"],
            tenant=given["tenant"],
            route=given["route"],
            language=given["language"],
            prompt=given["prompt"],
        )


def malformed() -> Iterator[Malformed]:
    """One case of each way to publish something that cannot be judged."""
    for line in packaged("samples", "malformed.jsonl").read_bytes().splitlines():
        given = orjson.loads(line)
        value, content_type = given["value_base64"], given["content_type"]
        yield Malformed(
            name=given["name"],
            why=given["why"],
            kind=Kind(given["topic"]),
            key=given["key"].encode() if given["key"] is not None else None,
            value=None if value is None else base64.b64decode(value),
            headers=((CONTENT_TYPE, content_type.encode()),) if content_type else (),
        )
