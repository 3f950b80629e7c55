"""Specification of scoring behind a cache: each content is judged once, errors are never kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pipeline.cached_scoring import CachedScorer
from pipeline.errors import DependencyUnavailable, Reason, Rejected, Suspected
from pipeline.events import Kind, Message
from pipeline.score_cache import ScoreCache
from pipeline.scoring import Scored

from .fakes import message
from .test_score_cache import judgement


class Asked:
    """A scorer that writes down what it was asked, and answers when let."""

    def __init__(self) -> None:
        self.texts: list[list[str]] = []
        self.alone: list[str] = []
        self.errors: dict[str, list[Scored]] = {}
        self.versions = {"tiny": "7"}
        self.open = asyncio.Event()
        self.open.set()

    async def score(self, messages: Sequence[Message]) -> list[Scored]:
        """The next error laid down for a text, else a judgement."""
        self.texts.append([each.text for each in messages])
        await self.open.wait()
        return [self._answer(each.text) for each in messages]

    async def score_alone(self, message: Message) -> Scored:
        """A judgement."""
        self.alone.append(message.text)
        return (judgement(),)

    def _answer(self, text: str) -> Scored:
        laid_down = self.errors.get(text)
        return laid_down.pop(0) if laid_down else (judgement(self.versions["tiny"]),)


@pytest.fixture
async def asked() -> Asked:
    """The scorer behind the cache."""
    return Asked()


@pytest.fixture
def scorer(asked: Asked) -> CachedScorer:
    """A cache of 8 contents in front of it."""
    return CachedScorer(asked, ScoreCache(8), asked.versions)


def rows(scored: Sequence[Scored]) -> list[int]:
    """The rows of the calls that answered."""
    assert all(isinstance(each, tuple) for each in scored), scored
    return [each[0].batch_rows for each in scored if isinstance(each, tuple)]


async def test_a_content_seen_before_is_not_asked_again(asked: Asked, scorer: CachedScorer) -> None:
    """New contents of the same batch are, and all come back in their order."""
    await scorer.score([message("a"), message("b")])
    assert rows(await scorer.score([message("c"), message("b"), message("a")])) == [8, 0, 0]
    assert asked.texts == [["a", "b"], ["c"]]


async def test_a_content_twice_in_a_batch_is_asked_once(asked: Asked, scorer: CachedScorer) -> None:
    """The second shares the first one's call."""
    assert rows(await scorer.score([message("a"), message("a")])) == [8, 0]
    assert asked.texts == [["a"]]


async def test_the_same_text_as_another_kind_is_another_content(
    asked: Asked, scorer: CachedScorer
) -> None:
    """A guard sees a completion in its prompt's context."""
    await scorer.score([message("a")])
    await scorer.score([message("a", kind=Kind.COMPLETION), message("a", prompt="b")])
    assert asked.texts == [["a"], ["a", "a"]]


async def test_a_call_under_way_is_shared(asked: Asked, scorer: CachedScorer) -> None:
    """A batch that comes meanwhile asks for what is new in it only."""
    asked.open.clear()
    first = asyncio.create_task(scorer.score([message("a")]))
    second = asyncio.create_task(scorer.score([message("a"), message("b")]))
    await asyncio.sleep(0)
    asked.open.set()
    assert [rows(await first), rows(await second)] == [[8], [0, 8]]
    assert asked.texts == [["a"], ["b"]]


@pytest.mark.parametrize(
    "error",
    [
        Suspected("the guard failed", remedy=""),
        DependencyUnavailable("away", remedy=""),
        Rejected(Reason.GUARD_REFUSED, "refused", remedy=""),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_is_neither_kept_nor_shared(
    asked: Asked, scorer: CachedScorer, error: Suspected | DependencyUnavailable | Rejected
) -> None:
    """Who waited for the failed call asks for itself, and so does the next."""
    asked.errors["a"] = [error, error]
    assert await scorer.score([message("a"), message("a")]) == [error, error]
    assert rows(await scorer.score([message("a")])) == [8]
    assert asked.texts == [["a"], ["a"], ["a"]]


async def test_a_cancelled_call_leaves_nobody_waiting(asked: Asked, scorer: CachedScorer) -> None:
    """Who shared it asks for itself."""
    asked.open.clear()
    first = asyncio.create_task(scorer.score([message("a")]))
    second = asyncio.create_task(scorer.score([message("a")]))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    asked.open.set()
    assert rows(await asyncio.wait_for(second, 1)) == [8]


async def test_who_shares_a_call_may_be_cancelled_without_ending_it(
    asked: Asked, scorer: CachedScorer
) -> None:
    """The call is another's."""
    asked.open.clear()
    first = asyncio.create_task(scorer.score([message("a")]))
    second = asyncio.create_task(scorer.score([message("a")]))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    asked.open.set()
    assert rows(await asyncio.wait_for(first, 1)) == [8]


async def test_a_new_version_of_the_served_guard_is_asked_again(
    asked: Asked, scorer: CachedScorer
) -> None:
    """Known from any answer, a canary's too."""
    await scorer.score([message("a")])
    asked.versions["tiny"] = "8"
    (scored,) = await scorer.score([message("a")])
    assert isinstance(scored, tuple)
    assert scored[0].guard.version == "8"


async def test_a_suspect_is_tried_by_the_guard_itself(asked: Asked, scorer: CachedScorer) -> None:
    """Never recalled, however often its content was judged before."""
    await scorer.score([message("a")])
    await scorer.score_alone(message("a"))
    assert asked.alone == ["a"]
