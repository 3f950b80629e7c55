"""Specification of the policies topic: what it holds, what is in force, what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec, policy_history
from pipeline.errors import Misconfigured
from pipeline.guards import cards
from pipeline.policy import Policy
from pipeline.policy_history import History, PolicyRecord, RecordKind
from pipeline.resources import packaged, shipped

from .fakes import NOON

DEFAULT = packaged("policies", "default.toml").read_text()


def policy_of(version: str, *, review: float = 0.5) -> PolicyRecord:
    """A small policy's record."""
    text = f'id = "p"\nversion = "{version}"\n[default.prompt]\nunsafe = {{ review = {review} }}\n'
    return policy_history.of_policy(text, name="p", at=NOON, by="t", note=None)


def activation_of(record: PolicyRecord, after_s: float = 0.0) -> PolicyRecord:
    """An activation of a policy, some time after noon."""
    at = NOON + timedelta(seconds=after_s)
    return policy_history.activation(record, at=at, by="t", note="why")


ONE, TWO, THREE = (policy_of(version) for version in "123")


def fed(*records: PolicyRecord, **kwargs: object) -> tuple[History, list[int]]:
    """A history fed with records at offsets 0, 1, ...; and the offsets refused."""
    history, refused = History(**kwargs), []  # type: ignore[arg-type]
    for offset, record in enumerate(records):
        try:
            history.add(record, offset)
        except Misconfigured:
            refused.append(offset)
    return history, refused


def in_force(history: History) -> str | None:
    """The version in force."""
    return history.active.record.version if history.active else None


@pytest.mark.parametrize(
    "record",
    [
        ONE,
        activation_of(ONE),
        policy_history.of_card(
            shipped("triton_models", "default", "card.toml").read_text(), at=NOON, by="worker"
        ),
    ],
)
def test_a_record_is_the_same_after_the_wire(record: PolicyRecord, schemas: codec.Schemas) -> None:
    """Encoding and decoding lose nothing."""
    assert policy_history.decode(policy_history.encode(record, schemas), schemas) == record


def test_a_document_has_one_key_and_each_activation_its_own() -> None:
    """Compaction keeps one copy of a document and every activation."""
    assert ONE.key == replace(ONE, published_at=NOON + timedelta(days=1)).key
    assert activation_of(ONE).key != activation_of(ONE, 0.001).key
    assert len({ONE.key, TWO.key, activation_of(ONE).key}) == 3


def test_a_cards_digest_is_the_one_that_verdicts_carry() -> None:
    """The shipped guard's card is found under the digest in its verdicts."""
    folder = shipped("triton_models", "default")
    text = (folder / "card.toml").read_bytes().decode()
    assert cards.identity(text).digest == cards.load(folder).digest


def test_nothing_is_in_force_until_a_policy_is_activated() -> None:
    """A published policy alone changes nothing."""
    history, refused = fed(ONE, TWO)
    assert (in_force(history), refused) == (None, [])
    assert history.policy(TWO.digest) is not None


def test_the_latest_activation_is_in_force() -> None:
    """Also when it goes back to an older policy."""
    history, _ = fed(ONE, TWO, activation_of(TWO), activation_of(ONE, 1))
    assert in_force(history) == "1"
    assert history.active is not None
    assert history.active.offset == 3


def test_an_activation_of_an_unknown_policy_is_refused_and_changes_nothing() -> None:
    """What was in force before stays in force."""
    history, refused = fed(ONE, activation_of(ONE), activation_of(TWO, 1))
    assert (in_force(history), refused) == ("1", [2])


def test_a_policy_that_comes_after_its_activation_is_in_force() -> None:
    """Compaction may keep a later copy of a document than the activation's offset."""
    history, _ = fed(ONE, activation_of(ONE), activation_of(TWO, 1), TWO)
    assert in_force(history) == "2"


def test_a_policy_the_guards_cannot_serve_is_not_put_in_force() -> None:
    """The check refuses the activation; the policy itself stays retrievable."""

    def check(policy: Policy) -> None:
        if policy.ref.version == "2":
            raise Misconfigured("no guard scores it", remedy="Add one")

    history, refused = fed(ONE, TWO, activation_of(ONE), activation_of(TWO, 1), check=check)
    assert (in_force(history), refused) == ("1", [3])
    assert history.policy(TWO.digest) is not None


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (replace(ONE, document="id = "), "not TOML"),
        (replace(ONE, document=None), "id"),
        (replace(ONE, digest=TWO.digest), "digest it claims"),
        (replace(ONE, record=RecordKind.UNKNOWN), "does not know"),
        (replace(ONE, record=RecordKind.GUARD_CARD), "not a guard's card"),
        (replace(ONE, record=RecordKind.GUARD_CARD, document="[guard]\nname = 1"), "not a guard"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_by_its_reason(
    record: PolicyRecord, says: str
) -> None:
    """Every refusal names what is wrong."""
    with pytest.raises(Misconfigured, match=says):
        History().add(record, 0)


def test_a_digest_may_be_shortened_while_it_is_one() -> None:
    """Six digits or more, of one document only."""
    history, _ = fed(ONE, TWO)
    short = ONE.digest.removeprefix("sha256:")[:8]
    assert history.find(short).record == ONE
    assert history.find(ONE.digest).record == ONE
    for wrong in ("", "sha256:", short[:5], "0" * 12):
        with pytest.raises(Misconfigured, match="published"):
            history.find(wrong)


@given(st.lists(st.sampled_from(["1", "2", "3", "on1", "on2", "on3"]), max_size=12))
def test_a_restarted_reader_comes_to_the_same_policy(names: list[str]) -> None:
    """Whatever the order, compaction of documents does not change what is in force."""
    by_name = {"1": ONE, "2": TWO, "3": THREE}
    records = [
        by_name[name] if name in by_name else activation_of(by_name[name[2]], index)
        for index, name in enumerate(names)
    ]
    running, _ = fed(*records)
    latest = {record.key: (offset, record) for offset, record in enumerate(records)}
    restarted = History()
    for offset, record in sorted(latest.values(), key=lambda pair: pair[0]):
        try:
            restarted.add(record, offset)
        except Misconfigured:
            continue
    assert in_force(restarted) == in_force(running)
