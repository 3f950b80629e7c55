"""Messages of a workload: reproducible, in the shares that were asked for."""

from __future__ import annotations

from collections import Counter
from functools import partial
from statistics import median
from typing import Any

import pytest

from loadtest import mix, workload
from loadtest.workload import validated
from pipeline import codec
from pipeline.envelope import Envelope
from pipeline.errors import Rejected
from pipeline.events import Kind

COUNT = 2000


def recipe(**change: Any) -> mix.Recipe:
    """A recipe of a workload with some parts changed."""
    load = {"mode": "rate", "rate_per_s": 1, "messages": 1}
    return mix.Recipe(validated({"question": "?", "load": load} | change, "test"))


def pieces(made: mix.Recipe, count: int = COUNT) -> list[mix.Piece]:
    """The first messages of a recipe."""
    return [made.piece(number, f"id-{number}") for number in range(count)]


def test_the_kth_message_is_the_same_whoever_makes_it() -> None:
    """So that several generators share one workload without talking; another seed differs."""
    once, again = recipe(), recipe()
    assert [once.piece(n, "x") for n in (5, 3)] == [again.piece(n, "x") for n in (5, 3)]
    assert pieces(once, 50) != pieces(recipe(seed=2), 50)


def test_shares_come_out_as_asked() -> None:
    """Kinds, malformed ones and tenants, within five standard deviations."""
    made = pieces(
        recipe(messages={"prompts": 0.8, "malformed": 0.1}, tenants={"acme": 3.0, "kids": 1.0})
    )
    assert sum(p.message.kind is Kind.PROMPT for p in made) == pytest.approx(1600, abs=90)
    assert sum(p.malformed for p in made) == pytest.approx(200, abs=70)
    tenants = Counter(p.message.tenant for p in made)
    assert tenants["acme"] == pytest.approx(1500, abs=100)
    assert set(tenants) == {"acme", "kids"}


def test_no_sample_is_blank() -> None:
    """A blank text is a dead letter by design; only `malformed` asks for those."""
    assert all(p.message.text.strip() for p in pieces(recipe()))


def test_generated_lengths_follow_their_distribution() -> None:
    """Median and 95th percentile in characters, and never above the bound."""
    texts = {"source": "generated", "median_chars": 300, "p95_chars": 900, "max_chars": 2000}
    lengths = sorted(len(p.message.text) for p in pieces(recipe(messages={"texts": texts})))
    assert median(lengths) == pytest.approx(300, rel=0.1)
    assert lengths[int(0.95 * COUNT)] == pytest.approx(900, rel=0.15)
    assert 1 <= lengths[0] <= lengths[-1] <= 2000


def test_the_gate_of_distinct_texts_is_nearly_that() -> None:
    """As many different texts as its question says; short ones meet now and then."""
    given = workload.read(workload.find("gate-10k-distinct-at-1000-per-s"))
    texts = {piece.message.text for piece in pieces(mix.Recipe(given), 10_000)}
    assert f"{len(texts):,} different texts" in given.question


def test_keys_are_spread_as_asked() -> None:
    """None; every conversation alike; or a few hot ones."""
    none = pieces(recipe(keys={"distribution": "none"}), 10)
    assert {p.message.conversation_id for p in none} == {None}
    shares = {}
    for distribution in ("uniform", "zipf"):
        made = pieces(recipe(keys={"distribution": distribution, "conversations": 100}))
        counts = Counter(p.message.conversation_id for p in made)
        assert len(counts) <= 100
        shares[distribution] = counts.most_common(1)[0][1] / COUNT
    assert shares["uniform"] < 0.05
    assert shares["zipf"] > 0.15


@pytest.mark.parametrize("wire", ["avro", "json"])
def test_a_malformed_value_is_never_decoded(wire: Any, schemas: codec.Schemas) -> None:
    """Cut anywhere, it is a dead letter for sure, so that counts can be told apart."""
    envelope = Envelope(
        {kind: kind.value for kind in Kind}, schemas, wire=wire, source="s", max_bytes=1 << 20
    )
    decode: Any = (
        codec.decode_json if wire == "json" else partial(codec.decode_avro, schemas=schemas)
    )
    for number, piece in enumerate(pieces(recipe(), 300)):
        record = envelope.around(piece.message)
        value = mix.cut(record.value or b"", number)
        with pytest.raises(Rejected):
            decode(value, piece.message.kind)
