"""Specification of one message's story: what applied, what decided, in order of time."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from rich.console import Console
from rich.text import Text

from pipeline import audit_story, codec, policy_file
from pipeline.audit_log import Entry
from pipeline.cli import audit_screen, console
from pipeline.cli.audit_screen import Story
from pipeline.events import (
    Action,
    AuditEvent,
    ChainLink,
    PolicyRef,
    Position,
    Retention,
    Status,
)
from pipeline.policy import decide
from tests.support.golden_records import AUDIT

from .strategies import audits

POLICY = policy_file.parse(
    """
id = "p"
version = "1"
[floor.prompt]
S1 = { block = 0.9 }
[default]
[default.prompt]
unsafe = { flag = 0.3, review = 0.6 }
[tenants.acme.prompt]
S12 = { flag = 0.2, review = 0.5 }
""",
    name="test",
)
STORED_MS = 1_741_064_768_000


def judged(**changed: object) -> AuditEvent:
    """An event that the test's policy decided."""
    verdict = structs.replace(
        AUDIT.verdict,
        policy=POLICY.ref,
        scores={"S12": 0.75, "unsafe": 0.4, "S3": 0.1},
        flagged=decide(
            {"S12": 0.75, "unsafe": 0.4, "S3": 0.1},
            POLICY.rules(AUDIT.verdict.kind, "acme", None),
        ).flagged,
    )
    return structs.replace(AUDIT, verdict=verdict, **changed)


def test_scores_stand_against_every_threshold_that_applied() -> None:
    """Also where none was crossed, and where a threshold had no score; the floor's as well."""
    event = judged()
    found = {s.category: s for s in audit_story.scores(event, audit_story.rules_of(event, POLICY))}
    assert [(each.action, each.at, each.origin) for each in found["S12"].limits] == [
        (Action.FLAG, 0.2, "tenant acme"),
        (Action.REVIEW, 0.5, "tenant acme"),
    ]
    assert (found["S12"].asked, found["unsafe"].asked) == (Action.REVIEW, Action.FLAG)
    assert (found["S3"].limits, found["S3"].asked) == ((), None)
    assert (found["S1"].score, found["S1"].limits[0].origin) == (None, "floor")


def test_what_asked_for_most_comes_first() -> None:
    """Then the higher score."""
    event = judged()
    order = [each.category for each in audit_story.scores(event, None)]
    assert order == ["S12", "unsafe", "S3"]


def test_another_policy_is_not_taken_for_the_one_that_decided() -> None:
    """Only the crossed thresholds are known then, from the verdict itself."""
    event = judged()
    other = structs.replace(
        event,
        verdict=structs.replace(event.verdict, policy=PolicyRef(id="p", version="1", digest="x")),
    )
    assert audit_story.rules_of(other, POLICY) is None
    assert audit_story.rules_of(event, None) is None
    (limit,) = audit_story.scores(other, None)[0].limits
    assert (limit.at, limit.action) == (0.5, Action.REVIEW)
    assert audit_story.scores(other, None)[2].limits == ()


def test_the_timeline_is_in_order_and_counts_from_arrival() -> None:
    """Sent may lie before; the guard's steps come from the recorded durations."""
    event = judged(
        sent_at=AUDIT.verdict.received_at - timedelta(milliseconds=12), queued_s=0.003,
        inference_s=0.020,
    )  # fmt: skip
    event = structs.replace(
        event,
        verdict=structs.replace(
            event.verdict,
            scored_at=event.verdict.received_at + timedelta(milliseconds=25),
            emitted_at=event.verdict.received_at + timedelta(milliseconds=26),
        ),
    )
    steps = audit_story.timeline(event, STORED_MS)
    assert [step.name for step in steps] == [
        "sent", "received", "asked", "answered", "scored", "emitted", "stored",
    ]  # fmt: skip
    offsets = [round(step.offset_s * 1000) for step in steps]
    assert offsets == [-12, 0, 3, 23, 25, 26, 109]


def test_no_guard_no_guard_steps() -> None:
    """An unscanned message was never asked about."""
    event = judged()
    bare = structs.replace(
        event,
        verdict=structs.replace(event.verdict, guards=(), scored_at=None, status=Status.UNSCANNED),
    )
    names = {step.name for step in audit_story.timeline(bare, STORED_MS)}
    assert names == {"sent", "received", "emitted", "stored"}


def test_what_was_kept_is_said_and_where_it_is_not_what_was_asked() -> None:
    """A tenant without a key finds out from the story."""
    event = judged(retention=Retention.HASH, content=None)
    rules = audit_story.rules_of(event, POLICY)
    assert rules is not None
    asked = replace(rules, retention=Retention.ENCRYPTED)
    assert audit_story.kept(event, rules) == "a hash"
    assert "no usable key" in audit_story.kept(event, asked)
    assert "17 bytes" in audit_story.kept(
        structs.replace(event, retention=Retention.PLAIN, content=b"x" * 17), None
    )


def test_the_story_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 80 columns no line of facts, scores, times or kin is wrapped; at 140 nothing is cut."""
    event = judged()
    verdict_id = event.verdict.verdict_id
    at = Position(topic="moderation.audit.v1", partition=2, offset=1)
    entry = Entry(at=at, timestamp_ms=STORED_MS, frame=b"", event=event)
    found = Story(entry=entry, repeats=1, others=(), related=(entry,))
    for width in (80, 140):
        out = Console(
            width=width, force_terminal=True, highlight=False, soft_wrap=True, file=io.StringIO()
        )
        monkeypatch.setattr(console, "out", out)
        audit_screen.print_story(found, POLICY, None)
        text = Text.from_ansi(out.file.getvalue()).plain  # type: ignore[attr-defined]
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert {"S12", "tenant", "received", "repeats", verdict_id} <= set(text.split())
        assert (event.verdict.guards[0].digest in text) is (width == 140)


@given(audits, st.integers(0, 253_402_300_799_999))
def test_any_event_has_a_story_without_its_text(event: AuditEvent, stored_ms: int) -> None:
    """Whatever was recorded; the text and its ciphertext are not in it."""
    marked = event
    if event.retention is Retention.PLAIN:
        marked = structs.replace(event, content=b"MARKED", context=b"MARKED")
    found = audit_story.document(
        marked, stored_ms=stored_ms, policy=POLICY, verdict=codec.as_json(marked.verdict)
    )
    assert "MARKED" not in repr(found)
    assert {"scores", "timeline", "chain", "kept"} <= set(found)
    assert len(found["timeline"]) >= 3


def test_the_chain_is_told() -> None:
    """Chain, place and predecessor."""
    event = structs.replace(AUDIT, chain=ChainLink(chain="c", sequence=3, previous=b"\x01\x02"))
    found = audit_story.document(event, stored_ms=0, policy=None, verdict={})
    assert found["chain"] == {"chain": "c", "sequence": 3, "previous": "0102"}
