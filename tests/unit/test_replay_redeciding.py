"""One record decided again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline import codec
from pipeline.events import Action, Coverage, Kind, Status
from pipeline.policy import Policy
from pipeline.replay import redeciding
from pipeline.replay.comparison import (
    WHY,
    Compared,
    LeftOut,
    canonical,
    category,
    decided_then,
    near,
    newly,
)
from pipeline.replay.policies import OfItsDay, by_digest, is_digest
from pipeline.resources import shipped as shipped_folder
from tests.unit import replays
from tests.unit.strategies import scores as any_score

SHIPPED = replays.shipped()
SCHEMAS = codec.load_schemas(shipped_folder("schemas"))
CATEGORIES = ("unsafe", "S4", "S11", "S12", "injection", "jailbreak")


def _compared(found: Compared | LeftOut) -> Compared:
    assert isinstance(found, Compared)
    return found


@given(
    scores=st.dictionaries(st.sampled_from(CATEGORIES), any_score),
    tenant=st.sampled_from(["", "acme", "kids", "unheard-of"]),
    kind=st.sampled_from(Kind),
    scanned=st.integers(0, 10),
)
def test_recorded_scores_under_the_recorded_policy_give_identical_bytes(
    scores: dict[str, float], tenant: str, kind: Kind, scanned: int
) -> None:
    """Whatever the scores, tenant, kind and coverage: after the wire and back, the same bytes."""
    judged = replace(replays.judgement(), scores=scores)
    coverage = Coverage(scanned_tokens=scanned, total_tokens=10)
    made = replays.event(
        by=SHIPPED, judged=judged, coverage=coverage, message={"tenant": tenant, "kind": kind}
    )
    read = codec.decode_audit(codec.encode_audit(made, SCHEMAS), SCHEMAS)
    found = _compared(redeciding.recorded(replays.entry(read), SHIPPED))
    assert found.same_policy
    assert (
        canonical(found.after) == canonical(found.before) == canonical(decided_then(made.verdict))
    )


@given(tenant=st.sampled_from(["", "kids"]))
def test_an_unscanned_record_is_decided_by_the_unscanned_action(tenant: str) -> None:
    """It stays unscanned under every policy; only what the policy asks for then can change."""
    event = replays.unscanned_event(by=SHIPPED)
    found = _compared(redeciding.recorded(replays.entry(event), replays.policy(replays.STRICT)))
    assert found.after.status is Status.UNSCANNED
    assert found.after.action is Action.REVIEW
    same = _compared(redeciding.recorded(replays.entry(event), SHIPPED))
    assert canonical(same.after) == canonical(same.before)


def test_another_policy_is_followed() -> None:
    """A score between two thresholds flips, with the threshold that decided."""
    found = _compared(
        redeciding.recorded(
            replays.entry(replays.event(unsafe=0.5)), replays.policy(replays.STRICT)
        )
    )
    assert (found.before.action, found.after.action) == (Action.ALLOW, Action.REVIEW)
    assert found.flip
    assert found.stricter
    assert found.after.flagged[0].threshold == 0.3


def test_a_partly_scanned_record_is_never_milder_than_the_partial_action() -> None:
    """The candidate's partial action holds in a replay as it does live."""
    event = replays.event(coverage=Coverage(scanned_tokens=1, total_tokens=9))
    harsh = replays.policy(
        replays.LOOSE.replace("[default]", '[default]\npartial_action = "block"')
    )
    found = _compared(redeciding.recorded(replays.entry(event), harsh))
    assert (found.after.action, found.after.status) == (Action.BLOCK, Status.DEGRADED)


def test_each_reason_to_leave_a_record_out_is_told_apart() -> None:
    """Nothing is skipped in silence: every reason has a word and its explanation."""
    event = replays.event()
    odd = replace(event, verdict=replace(event.verdict, action=Action.UNKNOWN))
    other = replace(event, verdict=replace(event.verdict, taxonomy="else-1"))
    closed = replays.policy(
        replays.LOOSE.replace('version = "1"', 'version = "1"\nunknown_tenant = "reject"')
    )
    guest = replays.event(message={"tenant": "guest"})
    open_ = replays.policy()
    asked: list[tuple[object, Policy | None, LeftOut]] = [
        (odd, open_, LeftOut.UNKNOWN_WORD),
        (event, None, LeftOut.POLICY_NOT_FOUND),
        (other, open_, LeftOut.OTHER_TAXONOMY),
        (guest, closed, LeftOut.TENANT_REFUSED),
    ]
    for given_event, policy, reason in asked:
        assert redeciding.recorded(replays.entry(given_event), policy) is reason  # type: ignore[arg-type]
    assert set(WHY) == set(LeftOut)


def test_a_threshold_without_a_score_is_told() -> None:
    """A policy that waits for a score the guard does not give can never be crossed."""
    bold = replays.policy(replays.LOOSE + "S12 = { block = 0.5 }\n")
    event = replays.event(message={"kind": Kind.COMPLETION})
    found = _compared(redeciding.recorded(replays.entry(event), bold))
    assert redeciding.lacking(found) == {"S12"}


@pytest.mark.parametrize(("score", "close"), [(0.305, True), (0.33, False), (0.2, False)])
def test_near_is_within_the_margin_of_the_threshold_that_decided(score: float, close: bool) -> None:
    """Only a crossed threshold that decided counts."""
    found = _compared(
        redeciding.recorded(
            replays.entry(replays.event(unsafe=score)), replays.policy(replays.STRICT)
        )
    )
    assert near(found.after, 0.02) is close


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (Action.ALLOW, Action.BLOCK, "blocked"),
        (Action.REVIEW, Action.BLOCK, "blocked"),
        (Action.ALLOW, Action.REVIEW, "held"),
        (Action.BLOCK, Action.REVIEW, ""),
        (Action.FLAG, Action.ALLOW, "released"),
        (Action.REVIEW, Action.FLAG, "released"),
        (Action.BLOCK, Action.FLAG, "released"),
        (Action.BLOCK, Action.ALLOW, "released"),
        (Action.ALLOW, Action.FLAG, ""),
        (Action.BLOCK, Action.BLOCK, ""),
    ],
)
def test_newly_names_what_an_action_became(before: Action, after: Action, word: str) -> None:
    """Blocked, held and released, each only where it was not so before."""
    assert newly(before, after) == word


def test_a_record_counts_under_the_category_of_its_more_severe_side() -> None:
    """The crossed threshold that explains the flip names the group."""
    event = replays.event(unsafe=0.5, S4=0.6)
    found = _compared(redeciding.recorded(replays.entry(event), replays.policy(replays.STRICT)))
    assert found.before.flagged[0].category == "S4"
    assert category(found) == "S4"
    quiet = _compared(redeciding.recorded(replays.entry(replays.event()), replays.policy()))
    assert category(quiet) == ""


def test_each_record_can_be_decided_by_the_policy_of_its_day() -> None:
    """A digest is looked up once, found or not."""
    loose, asked = replays.policy(), []

    def lookup(digest: str) -> Policy | None:
        asked.append(digest)
        return loose if digest == loose.ref.digest else None

    choice = OfItsDay(lookup)
    assert [choice.of(loose.ref.digest) for _ in range(3)] == [loose] * 3
    assert [choice.of("sha256:0"), choice.of("sha256:0")] == [None, None]
    assert asked == [loose.ref.digest, "sha256:0"]


def test_a_digest_that_is_not_known_names_the_remedy() -> None:
    """Asking for one policy by digest ends at once when it is not there."""
    with pytest.raises(Exception, match="--policy FILE"):
        by_digest(lambda _: None, "sha256:" + "0" * 64)
    assert is_digest("sha256:" + "0" * 64)
    assert not is_digest("strict.toml")
