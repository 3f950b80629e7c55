"""Specification of the use case: what is let in, and what is concluded."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from pipeline import moderation, policy_file
from pipeline.errors import Reason, Rejected
from pipeline.events import (
    Action,
    Coverage,
    GuardRef,
    Judgement,
    Kind,
    Message,
    Retention,
    Status,
)
from pipeline.moderation import Case, Intake, Stamp

from .fakes import NOON, received

POLICY = policy_file.parse(
    """
id = "p"
version = "1"
[default]
partial_action = "review"
[default.prompt]
unsafe = { flag = 0.5, block = 0.9 }
[tenants.plain]
retention = "plain"
[tenants.none]
retention = "none"
""",
    name="test",
)
INTAKE = Intake(max_text_bytes=20, max_future_s=60.0)
COPIED = sorted(
    # Every text of a message but the two that are sized as texts.
    {each.name for each in fields(Message) if "str" in str(each.type)} - {"text", "prompt"}
)
STAMP = Stamp(worker_id="w", now=NOON, attempt=3, scored_at=NOON)


def case_of(text: str = "hello", **changed: Any) -> Case:
    """A case that was let in."""
    return moderation.admit(received(7, text, **changed), POLICY, INTAKE)


def judgement(scanned: int = 5, total: int = 5, **scores: float) -> Judgement:
    """What a guard said."""
    return Judgement(
        guard=GuardRef(name="g", version="1", digest="d"), scores=scores,
        coverage=Coverage(scanned_tokens=scanned, total_tokens=total), template_digest="t",
        windows=2, batch_rows=4, queued_s=0.1, inference_s=0.2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"text": ""}, Reason.EMPTY_TEXT),
        ({"text": " \n\t\u00a0\u2003"}, Reason.EMPTY_TEXT),
        ({"text": "x" * 21}, Reason.OVERSIZE),
        ({"text": "é" * 11}, Reason.OVERSIZE),
        ({"prompt": "x" * 21, "kind": Kind.COMPLETION}, Reason.OVERSIZE),
        ({"text": "a\ud800"}, Reason.BAD_ENCODING),
        ({"message_id": ""}, Reason.MISSING_FIELD),
        *(({name: "x" * 513}, Reason.OVERSIZE) for name in COPIED),
        *(({name: "a\ud800"}, Reason.BAD_ENCODING) for name in COPIED),
        ({"sent_at": NOON + timedelta(seconds=61)}, Reason.BAD_TIMESTAMP),
    ],
)
def test_what_cannot_be_judged_is_rejected(changed: dict[str, Any], reason: Reason) -> None:
    """Each fault has its reason and a remedy."""
    with pytest.raises(Rejected) as caught:
        case_of(**{"text": "hello"} | changed)
    assert caught.value.reason is reason
    assert caught.value.remedy


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "x" * 20},
        {"text": "é" * 10},
        *({name: "x" * 512} for name in COPIED),
        {"sent_at": NOON + timedelta(seconds=60)},
        {"sent_at": NOON - timedelta(days=20_000)},
    ],
)
def test_the_limits_themselves_are_let_in(changed: dict[str, Any]) -> None:
    """A limit is the largest value allowed; an old message is still judged."""
    assert case_of(**{"text": "hello"} | changed)


def test_the_verdict_id_is_the_inputs_position() -> None:
    """A redelivery at another attempt and time carries the same id."""
    later = replace(STAMP, attempt=9, now=NOON + timedelta(hours=1))
    ids = {
        moderation.conclude(case_of(), [judgement()], STAMP).verdict.verdict_id,
        moderation.unscanned(case_of(), "away", later).verdict.verdict_id,
    }
    assert ids == {"prompts:0:7"}


@pytest.mark.parametrize(
    ("score", "action"), [(0.1, Action.ALLOW), (0.5, Action.FLAG), (0.9, Action.BLOCK)]
)
def test_a_scored_message_gets_the_policys_action(score: float, action: Action) -> None:
    """With all of the text seen the status is scored and the policy alone decides."""
    verdict = moderation.conclude(case_of(), [judgement(unsafe=score)], STAMP).verdict
    assert (verdict.action, verdict.status) == (action, Status.SCORED)
    assert verdict.scores == {"unsafe": score}


@given(st.floats(0, 1), st.integers(0, 9))
def test_partial_coverage_is_degraded_and_never_milder(score: float, scanned: int) -> None:
    """What was not seen is never called scored, and costs at least the partial action."""
    whole = moderation.conclude(case_of(), [judgement(10, 10, unsafe=score)], STAMP).verdict
    part = moderation.conclude(case_of(), [judgement(scanned, 10, unsafe=score)], STAMP).verdict
    assert part.status is Status.DEGRADED
    assert part.action.severity >= max(whole.action.severity, Action.REVIEW.severity)
    assert f"{scanned} of 10 tokens scanned" in part.reason


def test_an_unscanned_message_is_never_allowed_or_called_scored() -> None:
    """It takes the policy's unscanned action, without scores or guards."""
    outcome = moderation.unscanned(case_of(), "Triton does not answer", STAMP)
    verdict = outcome.verdict
    assert (verdict.action, verdict.status) == (Action.REVIEW, Status.UNSCANNED)
    assert (dict(verdict.scores), verdict.guards, verdict.flagged) == ({}, (), ())
    assert verdict.coverage == Coverage(scanned_tokens=0, total_tokens=-1)
    assert "Triton does not answer" in verdict.reason


def test_of_several_guards_the_highest_score_and_least_coverage_count() -> None:
    """No guard's alarm or blind spot is averaged away."""
    judged = [judgement(5, 5, unsafe=0.2, S1=0.9), judgement(3, 9, unsafe=0.7)]
    verdict = moderation.conclude(case_of(), judged, STAMP).verdict
    assert verdict.scores == {"unsafe": 0.7, "S1": 0.9}
    assert verdict.coverage == Coverage(scanned_tokens=3, total_tokens=9)
    assert len(verdict.guards) == 2


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=4))
def test_merge_keeps_every_category_at_its_maximum(parts: list[dict[str, float]]) -> None:
    """Merging forgets no category and invents no score."""
    merged = moderation.merge([replace(judgement(), scores=part) for part in parts])
    assert merged == {
        code: max(part[code] for part in parts if code in part)
        for code in {code for part in parts for code in part}
    }


@pytest.mark.parametrize(
    ("tenant", "retention", "content", "hashed"),
    [
        ("", Retention.HASH, None, True),
        ("plain", Retention.PLAIN, b"hello", True),
        ("none", Retention.NONE, None, False),
    ],
)
def test_the_audit_event_keeps_what_the_policy_says(
    tenant: str, retention: Retention, content: bytes | None, hashed: bool
) -> None:
    """Hash only, the text itself, or nothing."""
    case = case_of(tenant=tenant, kind=Kind.COMPLETION, prompt="why?")
    audit = moderation.conclude(case, [judgement()], STAMP).audit
    expected = "sha256:" + hashlib.sha256(b"hello").hexdigest() if hashed else ""
    assert (audit.retention, audit.content, audit.content_hash) == (retention, content, expected)
    assert audit.context == (b"why?" if content else None)


def test_the_audit_event_can_prove_the_verdict() -> None:
    """It holds the verdict as emitted, and who judged how, at which attempt."""
    outcome = moderation.conclude(case_of(), [judgement(), judgement()], STAMP)
    audit = outcome.audit
    assert audit.verdict is outcome.verdict
    assert (audit.worker_id, audit.attempt, audit.windows, audit.batch_rows) == ("w", 3, 4, 4)
    assert audit.template_digest == "t,t"


def test_the_reason_names_category_score_threshold_and_layer() -> None:
    """A person reading the verdict sees why."""
    verdict = moderation.conclude(case_of(), [judgement(unsafe=0.95)], STAMP).verdict
    assert verdict.reason == "unsafe Any hazard: 0.950 >= 0.9 asks for block (default)"


def test_a_tenant_the_policy_does_not_know_is_said() -> None:
    """It was judged, but under the default."""
    verdict = moderation.conclude(case_of(tenant="new"), [judgement()], STAMP).verdict
    assert "does not know the tenant" in verdict.reason


def test_of_two_guards_the_incomplete_coverage_counts() -> None:
    """Also beside one that found nothing to see."""
    part = Coverage(scanned_tokens=100, total_tokens=9000)
    for whole in (Coverage(scanned_tokens=0, total_tokens=0),
                  Coverage(scanned_tokens=5, total_tokens=5)):  # fmt: skip
        assert moderation.least([whole, part]) == moderation.least([part, whole]) == part
