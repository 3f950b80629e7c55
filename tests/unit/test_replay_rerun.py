"""Scoring kept content again: whose content is there, and what the guard says now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pipeline import codec
from pipeline.errors import (
    DependencyUnavailable,
    KeyUnavailable,
    Reason,
    Rejected,
    Suspected,
)
from pipeline.events import AuditEvent, Judgement, Kind, Message, Received, Retention
from pipeline.moderation import Intake, Stamp, admit, conclude
from pipeline.policy import Policy
from pipeline.replay import depths
from pipeline.replay.comparison import Compared, LeftOut
from pipeline.replay.content import message_of
from pipeline.replay.depths import Rerun
from pipeline.replay.policies import OneForAll
from pipeline.scoring import Guard, Scored
from pipeline.sealing import KEY_BYTES, seal, unseal
from tests.unit import replays
from tests.unit.fakes import NOON, Bench, FakeClock, ScriptedClassifier, message, position

TEXT = "quokkaberry"
KEY = bytes(KEY_BYTES)


class _Opener:
    """Opens what the one key sealed; a key named erased or missing fails as such."""

    def open(self, key_id: str, ciphertext: bytes, *, bound_to: str) -> bytes:
        """The content, by the one key."""
        if key_id in {"erased", "missing"}:
            raise KeyUnavailable("no", remedy="", erased=key_id == "erased")
        return unseal(KEY, ciphertext, bound_to=bound_to)


def _kept(**changed: Any) -> AuditEvent:
    return structs.replace(replays.event(text=TEXT), **changed)


def _sealed(*, key_id: str = "k-1", part: str = "content") -> AuditEvent:
    verdict_id = replays.event().verdict.verdict_id
    return _kept(
        retention=Retention.ENCRYPTED,
        key_id=key_id,
        content=seal(KEY, TEXT.encode(), bound_to=f"{verdict_id}/{part}"),
    )


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (replays.unscanned_event(), LeftOut.NOT_SCANNED),
        (_kept(retention=Retention.NONE, content=None), LeftOut.NOT_KEPT),
        (_kept(retention=Retention.HASH, content=None), LeftOut.HASH_ONLY),
        (_kept(retention=Retention.UNKNOWN, content=None), LeftOut.UNKNOWN_WORD),
        (_kept(content=b"\xff"), LeftOut.NOT_OPENED),
        (_sealed(key_id="erased"), LeftOut.KEY_ERASED),
        (_sealed(key_id="missing"), LeftOut.KEY_MISSING),
        (_sealed(part="context"), LeftOut.NOT_OPENED),
    ],
)
def test_content_that_is_not_there_has_a_reason(event: AuditEvent, reason: LeftOut) -> None:
    """Each sort of loss is told apart."""
    assert message_of(replays.entry(event), _Opener()) is reason


def test_encrypted_content_needs_keys_and_opens_with_them() -> None:
    """Without an opener the reason says that no keys were given."""
    event = _sealed()
    assert message_of(replays.entry(event), None) is LeftOut.NO_KEYS
    found = message_of(replays.entry(event), _Opener())
    assert isinstance(found, Message)
    assert found.text == TEXT


def test_the_message_is_the_one_that_was_judged() -> None:
    """Text, kind, tenant, route, prompt and all that a guard or a policy looks at."""
    given_message = {
        "kind": Kind.COMPLETION, "tenant": "acme", "route": "chat", "prompt": "why",
        "prompt_id": "m-0", "language": "en", "conversation_id": "c",
    }  # fmt: skip
    event = replays.event(text=TEXT, message=given_message)
    assert message_of(replays.entry(event), None) == Message(
        message_id="m-0", text=TEXT, **given_message
    )


class _Scripted:
    """Answers each call by the next script."""

    def __init__(self, *scripts: Any) -> None:
        self.scripts = list(scripts)
        self.alone: list[Message] = []

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """What the script says, the same for all."""
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return [script(m) if callable(script) else script for m in messages]

    async def score_alone(self, message: Message) -> Scored:
        """Refuses."""
        self.alone.append(message)
        return Rejected(Reason.GUARD_REFUSED, "no", remedy="")


def _rerun(scorer: _Scripted) -> Rerun:
    return Rerun(OneForAll(replays.policy()), scorer, first_wait_s=0.0)


AWAY = DependencyUnavailable("away", remedy="")


async def test_a_guard_that_comes_back_is_waited_for() -> None:
    """Two failures, then scores: nothing is left out."""
    scorer = _Scripted(AWAY, AWAY, (replays.judgement(unsafe=0.9),))
    (found,) = await _rerun(scorer).judge([replays.entry(replays.event())])
    assert isinstance(found, Compared)
    assert found.scores["unsafe"] == 0.9


async def test_a_guard_that_stays_away_ends_the_replay() -> None:
    """Its error is raised, so that the replay can be resumed."""
    with pytest.raises(DependencyUnavailable):
        await _rerun(_Scripted(AWAY)).judge([replays.entry(replays.event())])


async def test_what_the_guard_refuses_or_does_not_judge_is_left_out() -> None:
    """Each with its own reason, and its neighbours keep their results."""
    refusal = Rejected(Reason.GUARD_REFUSED, "no", remedy="")
    by_text: dict[str, Scored] = {"bad": refusal, "none": (), "fine": (replays.judgement(),)}
    scorer = _Scripted(lambda m: by_text[m.text])
    entries = [replays.entry(replays.event(text=text)) for text in ("bad", "none", "fine")]
    first, second, third = await _rerun(scorer).judge(entries)
    assert (first, second) == (LeftOut.GUARD_REFUSED, LeftOut.NO_GUARD)
    assert isinstance(third, Compared)


async def test_a_text_that_brings_the_guard_down_is_tried_alone_and_left_out() -> None:
    """It does not hold the replay up for ever."""
    suspected = Suspected("it dies", remedy="")
    scorer = _Scripted(lambda m: suspected if m.text == "poison" else (replays.judgement(),))
    entries = [replays.entry(replays.event(text=text)) for text in ("poison", "fine")]
    first, second = await _rerun(scorer).judge(entries)
    assert first is LeftOut.GUARD_REFUSED
    assert isinstance(second, Compared)
    assert [m.text for m in scorer.alone] == ["poison"]


def _live(bench: Bench, messages: Sequence[Message], judged: Sequence[Scored]) -> list[AuditEvent]:
    policy, intake = replays.policy(), Intake(max_text_bytes=10_000, max_future_s=1.0)
    made = []
    for number, (each, scored) in enumerate(zip(messages, judged, strict=True)):
        taken = Received(message=each, position=position(number), received_at=NOON)
        stamp = Stamp(worker_id="w", now=NOON)
        found: Any = scored
        made.append(conclude(admit(taken, policy, intake), found, stamp).audit)
    return made


@settings(max_examples=40)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(["fine", "unsafe", "minor"]), min_size=1, max_size=40).map(
            " ".join
        ),
        min_size=1,
        max_size=12,
    ),
    live=st.integers(1, 12),
    again=st.integers(1, 12),
)
def test_the_same_guard_and_policy_give_the_same_whatever_the_batches(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], live: int, again: int
) -> None:
    """Scored in batches of one size and again in others: zero flips, equal scores."""
    import asyncio

    bench = _bench(tmp_path_factory)
    messages = [message(text, message_id=f"m-{n}") for n, text in enumerate(texts)]

    async def both() -> list[Any]:
        scorer, judged = bench.scorer(), list[Scored]()
        for start in range(0, len(messages), live):
            judged += await scorer.score(messages[start : start + live])
        schemas = bench.schemas
        events = [
            codec.decode_audit(codec.encode_audit(event, schemas), schemas)
            for event in _live(bench, messages, judged)
        ]
        depth = Rerun(OneForAll(replays.policy()), bench.scorer())
        found: list[Any] = []
        for start in range(0, len(events), again):
            found += await depth.judge([replays.entry(e) for e in events[start : start + again]])
        return found

    for compared in asyncio.run(both()):
        assert isinstance(compared, Compared)
        assert compared.same_policy
        assert compared.same_guards
        assert compared.before == compared.after
        assert compared.scores == compared.verdict.scores


_BENCHES: list[Bench] = []


def _bench(factory: pytest.TempPathFactory) -> Bench:
    """One bench for all examples: its guard is files."""
    from pipeline.resources import shipped
    from tests.unit.fakes import write_guard

    if not _BENCHES:
        guard: Guard = write_guard(factory.mktemp("guard"))
        policy: Policy = replays.policy()
        _BENCHES.append(
            Bench(
                schemas=codec.load_schemas(shipped("schemas")),
                guard=guard,
                policy=policy,
                clock=FakeClock(),
            )
        )
    return _BENCHES[0]


async def test_a_guard_that_depends_on_its_batch_breaks_determinism(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The check can fail: scores that move with the batch are counted and shown."""
    from pipeline.replay.tally import Tally

    bench = _bench(tmp_path_factory)
    drifting = ScriptedClassifier([lambda rows: np.full((len(rows), 3), float(len(rows)), "f4")])
    scorer = replace(bench, classifier=drifting).scorer()
    messages = [message("fine", message_id=f"m-{number}") for number in range(3)]
    judged = [(await scorer.score([each]))[0] for each in messages]
    entries = [replays.entry(event) for event in _live(bench, messages, judged)]
    tally = Tally(margin=0.02, tolerance=1e-4)
    for found in await Rerun(OneForAll(replays.policy()), scorer).judge(entries):
        assert isinstance(found, Compared)
        tally.add(found)
    assert tally.determinism.other_scores == 3
    assert not tally.determinism.held
    assert depths.ATTEMPTS > 1
    assert isinstance(judged[0], tuple)
    assert isinstance(judged[0][0], Judgement)
