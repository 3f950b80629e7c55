"""Targets: a policy file is refused in words, or decides totally, monotonically and for good."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from pipeline import policy_file, policy_history
from pipeline.errors import Misconfigured, Rejected
from pipeline.events import Action, Kind
from pipeline.policy import Policy, Rules, decide
from pipeline.policy_history import History, PolicyRecord, RecordKind
from pipeline.resources import packaged
from pipeline.taxonomy import CATEGORIES

from .decoding import SCHEMAS
from .draws import Draws, edited
from .target import Target

SHIPPED: Final = packaged("policies", "default.toml").read_text()
_CODES: Final = (*CATEGORIES, "S99")


def parsed(data: bytes) -> None:
    """Any text is a policy or Misconfigured; the shipped file, edited, too."""
    draws = Draws(data)
    if draws.flag():
        text = draws.rest().decode("utf-8", "surrogateescape")
    else:
        text = edited(SHIPPED.encode(), draws).decode("utf-8", "replace")
    decides(policy_file.parse(text, name="fuzzed.toml"), draws)


def built(data: bytes) -> None:
    """A document made of a policy's own keys keeps its digest however it is laid out."""
    draws = Draws(data)
    document = _document(draws)
    policy = policy_file.parse(_toml(document), name="built.toml")
    again = policy_file.parse(_toml(_turned(document), gap="  # remark\n\n"), name="built.toml")
    assert again == policy, "order, spacing and remarks changed the policy"
    decides(policy, draws)


def topic(data: bytes) -> None:
    """Whatever lies in the policies topic, what is refused changes nothing that is in force."""
    draws = Draws(data)
    history = History()
    for offset in range(draws.whole(1, 6)):
        before = history.active
        try:
            record = policy_history.decode(edited(_frame(draws), draws), SCHEMAS)
            history.add(record, offset)
        except (Rejected, Misconfigured):
            assert history.active == before, "a refused record changed the policy in force"
        _consistent(history)


def _consistent(history: History) -> None:
    """What is in force was published under its digest, and everything has its place."""
    if active := history.active:
        policy = history.policy(active.record.digest)
        assert policy is not None
        assert policy.ref.digest == active.record.digest
    offsets = [placed.offset for placed in history.placed]
    assert offsets == sorted(offsets)


_ODD: Final = ("", "[" * 2000, "x = " + "[" * 2000, "x = " + "9" * 5000, "id = 1", "[digests]")
_DOCUMENTS: Final = (SHIPPED, SHIPPED.replace("0.64", "0.65"))


def _frame(draws: Draws) -> bytes:
    """A record of the topic: a policy, its activation, a card; honest or not."""
    text = draws.pick((*_DOCUMENTS, *_ODD))
    text, kind = text or draws.text(9), draws.pick(tuple(RecordKind))
    digest = _digests()[draws.pick(_DOCUMENTS)] if draws.flag() else draws.text(4)
    record = PolicyRecord(
        record=kind,
        digest=digest,
        id=draws.text(3),
        version="1",
        document=None if kind is RecordKind.ACTIVATION else text,
        published_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return policy_history.encode(record, SCHEMAS)


@cache
def _digests() -> Mapping[str, str]:
    return {text: policy_file.parse(text, name="known").ref.digest for text in _DOCUMENTS}


def decides(policy: Policy, draws: Draws) -> None:
    """Each rule set gives an action for any scores, and never a milder one for higher scores."""
    for rules in _all(policy):
        scores = {draws.pick(_CODES): draws.unit() for _ in range(draws.whole(0, 4))}
        first = decide(scores, rules)
        raised = {
            code: min(1.0, score + draws.unit() * draws.whole(0, 1))
            for code, score in scores.items()
        }
        assert isinstance(first.action, Action)
        assert decide(raised, rules).action.severity >= first.action.severity
        assert (
            decide(dict.fromkeys(CATEGORIES, 1.0), rules).action.severity >= first.action.severity
        )
        floor = [step for step in rules.floor if scores.get(step.category, -1) >= step.at]
        assert all(first.action.severity >= step.action.severity for step in floor)
        assert all(flagged.score >= flagged.threshold for flagged in first.flagged)


def _all(policy: Policy) -> Iterator[Rules]:
    """The rules of each layer, by way of the look-up that the worker uses."""
    tenants = ("", "nobody", *policy.tenants)
    routed = [*((tenant, None) for tenant in tenants), *policy.routes, ("", "nowhere")]
    for tenant, route in routed:
        for kind in Kind:
            try:
                yield policy.rules(kind, tenant, route)
            except Rejected:
                assert policy.reject_unknown_tenants
                assert not policy.knows(tenant)


def _document(draws: Draws) -> dict[str, Any]:
    tenants: dict[str, Any] = {}
    for _ in range(draws.whole(0, 2)):
        routes = {draws.text(3): _layer(draws) for _ in range(draws.whole(0, 2))}
        tenants[draws.text(3)] = {**_layer(draws), "routes": routes}
    return {
        "id": draws.text(3) or "p",
        "version": "1",
        "unknown_tenant": draws.pick(["default", "reject"]),
        "floor": {kind.value: _categories(draws) for kind in Kind},
        "default": _layer(draws),
        "tenants": tenants,
    }


def _layer(draws: Draws) -> dict[str, Any]:
    layer: dict[str, Any] = {kind.value: _categories(draws) for kind in Kind if draws.flag()}
    if draws.flag():
        layer["unscanned_action"] = draws.pick(["flag", "review", "block", "allow"])
    if draws.flag():
        layer["degrade_after_s"] = draws.pick([1, 0.5, 3600, 0, 10**400, float("inf")])
    if draws.flag():
        layer["retention"] = draws.pick(["none", "hash", "plain"])
    return layer


def _categories(draws: Draws) -> dict[str, Any]:
    return {
        draws.pick(_CODES[draws.whole(0, 1) :]): _steps(draws) for _ in range(draws.whole(0, 2))
    }


def _steps(draws: Draws) -> dict[str, float]:
    names = [name for name in ("flag", "review", "block") if not draws.flag()]
    values = [draws.unit() for _ in names]
    return dict(zip(names, values if draws.flag() else sorted(values), strict=True))


def _turned(value: Any) -> Any:
    """The same document with each table's keys the other way round."""
    if isinstance(value, Mapping):
        return {key: _turned(inner) for key, inner in reversed(value.items())}
    return value


def _toml(document: Mapping[str, Any], *, gap: str = "\n") -> str:
    """The document as TOML: inline tables, which may stand in any order."""
    return "".join(f"{_string(key)} = {_value(value)}{gap}" for key, value in document.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = (f"{_string(key)} = {_value(each)}" for key, each in value.items())
        return "{" + ", ".join(inner) + "}"
    return _string(value) if isinstance(value, str) else str(value)


def _string(text: str) -> str:
    """A TOML string; unlike JSON's its escapes are whole code points, DEL among them."""
    return json.dumps(
        "".join(f"\\U{ord(char):08x}" if _escaped(char) else char for char in text),
        ensure_ascii=False,
    ).replace("\\\\U", "\\U")


def _escaped(char: str) -> bool:
    return not 0x20 <= ord(char) < 0x7F or char in '\\"'


def _seeds() -> list[bytes]:
    deep, long = "id = " + "[" * 2000, "id = " + "9" * 5000
    lines = [SHIPPED[:400], deep, long, "id = 1979-13-45", 'a = """x', "[default]\nprompt = 3"]
    return [b"\x01" + line.encode() for line in lines] + [b"\x00\x01\x00\x01\x00\x07"]


def _topic_seeds() -> list[bytes]:
    """A policy and its activation, and each odd document as a policy and as a card."""
    order = {kind: number for number, kind in enumerate(RecordKind)}
    policy, card, active = (
        order[kind] for kind in (RecordKind.POLICY, RecordKind.GUARD_CARD, RecordKind.ACTIVATION)
    )
    honest = bytes([1, 0, policy, 0, 1, 0, 0]), bytes([0, active, 0, 1, 0, 0])
    odd = [bytes([0, number, kind, 0, 0]) for number in range(3, 8) for kind in (policy, card)]
    return [b"".join(honest), *odd]


TARGETS: Final = (
    Target(name="policy", entry=parsed, allowed=(Misconfigured,), seeds=_seeds, share=5,
           max_bytes=6144),
    Target(name="policy-topic", entry=topic, seeds=_topic_seeds, share=2),
    Target(name="policy-layout", entry=built, allowed=(Misconfigured,), share=5),
)  # fmt: skip
