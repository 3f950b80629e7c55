"""Specification of remembered scores: only what a guard said, of exactly that content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.events import Coverage, GuardRef, Judgement, Kind
from pipeline.score_cache import ScoreCache, content_key

from .fakes import message

VERSIONS = {"tiny": "7"}


def judgement(version: str = "7", name: str = "tiny") -> Judgement:
    """What a guard said, with a call of its own."""
    return Judgement(
        guard=GuardRef(name=name, version=version, digest="sha256:0"),
        scores={"unsafe": 0.25},
        coverage=Coverage(scanned_tokens=1, total_tokens=1),
        template_digest="sha256:1",
        windows=1,
        batch_rows=8,
        queued_s=0.5,
        inference_s=0.1,
    )


def test_a_recalled_judgement_shows_that_no_guard_call_was_made_for_it() -> None:
    """Same scores, guard and coverage; no rows, no wait, no inference."""
    cache = ScoreCache(2)
    cache.put(b"a", (judgement(),))
    expected = replace(judgement(), batch_rows=0, queued_s=0.0, inference_s=0.0)
    assert cache.get(b"a", VERSIONS) == (expected,)


def test_the_least_recently_used_content_makes_room() -> None:
    """Being asked for counts as use."""
    cache = ScoreCache(2)
    for key in (b"a", b"b"):
        cache.put(key, (judgement(),))
    cache.get(b"a", VERSIONS)
    cache.put(b"c", (judgement(),))
    assert [cache.get(key, VERSIONS) is not None for key in (b"a", b"b", b"c")] == [1, 0, 1]
    assert len(cache) == 2


def test_no_room_remembers_nothing() -> None:
    """With 0 entries, every content is unknown."""
    cache = ScoreCache(0)
    cache.put(b"a", (judgement(),))
    assert cache.get(b"a", VERSIONS) is None


@pytest.mark.parametrize("versions", [{"tiny": "8"}, {}, {"other": "7"}])
def test_a_new_version_of_a_guard_ends_what_the_old_one_said(versions: dict[str, str]) -> None:
    """Forgotten, not hidden: it does not come back with the old version."""
    cache = ScoreCache(2)
    cache.put(b"a", (judgement(),))
    assert cache.get(b"a", versions) is None
    assert cache.get(b"a", VERSIONS) is None


def test_every_guard_must_be_as_it_was() -> None:
    """One of two guards in a new version is enough to ask both again."""
    cache = ScoreCache(2)
    cache.put(b"a", (judgement(), judgement(name="second")))
    assert cache.get(b"a", {"tiny": "7", "second": "8"}) is None


CONTENT = st.tuples(st.sampled_from(Kind), st.text(max_size=4), st.text(max_size=4))


@given(CONTENT, CONTENT)
def test_contents_share_a_key_only_if_a_guard_sees_the_same_of_both(
    one: tuple[Kind, str, str], other: tuple[Kind, str, str]
) -> None:
    """Kind, text and prompt decide; no part can pass for the end of another."""
    keys = [
        content_key(message(text, kind=kind, prompt=prompt)) for kind, text, prompt in (one, other)
    ]
    assert (keys[0] == keys[1]) == (one == other)


def test_who_sent_a_content_is_no_part_of_its_key() -> None:
    """Tenant and ids decide the policy, which is applied after the scores."""
    sent = message("fine", tenant="kids", message_id="m-2", route="chat", language="de")
    assert content_key(sent) == content_key(message("fine"))
