"""Specification of the short way to a message: what it reads, fastavro reads the same."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import Rejected
from pipeline.events import Kind, Message
from pipeline.input_bytes import read_message
from pipeline.resources import shipped

from . import strategies

SCHEMAS = codec.load_schemas(shipped("schemas"))
HEAD = 5
messages = st.sampled_from(Kind).flatmap(strategies.messages)


@given(messages)
def test_a_well_formed_message_takes_the_short_way(message: Message) -> None:
    """Every field comes back, and fastavro is not asked."""
    value = codec.encode_message(message, SCHEMAS)
    assert read_message(value, HEAD, message.kind) == message


def _damaged(draw: Callable[[st.SearchStrategy[object]], object], value: bytes) -> bytes:
    data = bytearray(value)
    for _ in range(int(draw(st.integers(0, 3)))):  # type: ignore[call-overload]
        data[int(draw(st.integers(HEAD, len(data) - 1)))] = int(draw(st.integers(0, 255)))  # type: ignore[call-overload]
    cut = int(draw(st.integers(-3, 3)))  # type: ignore[call-overload]
    return bytes(data[: len(data) + cut] if cut < 0 else data + b"\x00" * cut)


@settings(max_examples=400)
@given(st.data(), messages)
def test_a_damaged_message_ends_as_fastavro_ends_it(data: st.DataObject, message: Message) -> None:
    """Whether it still reads, and as what, does not depend on the way."""
    value = _damaged(data.draw, codec.encode_message(message, SCHEMAS))
    short = _outcome(value, message.kind)
    with mock.patch.object(codec, "read_message", return_value=None):
        assert short == _outcome(value, message.kind)


def _outcome(value: bytes, kind: Kind) -> Message | str:
    try:
        return codec.decode_avro(value, kind, SCHEMAS)
    except Rejected as error:
        return str(error)


@pytest.mark.parametrize("kind", list(Kind))
def test_an_empty_id_is_left_to_the_long_way(kind: Kind) -> None:
    """It says which field is missing."""
    value = codec.encode_message(Message(message_id="", kind=kind, text="t"), SCHEMAS)
    assert read_message(value, HEAD, kind) is None
