"""Specification of poison: what the guard fails on, while it answers everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline import codec, selftest
from pipeline.errors import Misconfigured, Reason, Rejected, Retryable, Suspected
from pipeline.health import Health
from pipeline.scoring import Guard, Scored
from pipeline.selftest import VerifiedScorer
from pipeline.stream import Flow

from .fakes import TOPICS, WORD_IDS, Bench, TrustingScorer, away, by_words, message


class Served:
    """A server that states the digest it is told to; None states none."""

    def __init__(self, digest: str | None = None) -> None:
        self.digest = digest

    async def served_digest(self, guard: str) -> str | None:
        """What the served model's configuration says."""
        return self.digest


def dies_of_poison(rows: Sequence[Sequence[int]]) -> Any:
    """A script: a call with the word poison gets no answer, any other does."""
    return away(rows) if any(WORD_IDS["poison"] in row for row in rows) else by_words(rows)


def verified(bench: Bench, served: Served | None = None) -> VerifiedScorer:
    """The scorer that the worker uses, over the bench's guard."""
    return VerifiedScorer(bench.scorer(), served or Served(), bench.health)


def flow_of(bench: Bench) -> Flow:
    """A flow that checks its guard's golden texts."""
    flow = bench.flow()
    flow._scorer = verified(bench)
    return flow


def letters(bench: Bench) -> list[dict[str, bytes]]:
    """The headers of every dead letter."""
    return [dict(record.headers) for record in bench.publisher.to(TOPICS.dead_letters)]


async def test_a_failure_while_the_guard_answers_others_is_suspected(bench: Bench) -> None:
    """The golden texts pass right after, so the message may be why."""
    bench.classifier.scripts = [dies_of_poison]
    (result,) = await verified(bench).score([message("poison")])
    assert isinstance(result, Suspected)
    assert "does not answer" in result.message


async def test_a_failure_of_a_guard_that_is_away_is_nobodys_fault(bench: Bench) -> None:
    """The golden texts get no answer either: not suspected."""
    bench.classifier.scripts = [by_words, away]
    (result,) = await verified(bench).score([message("fine")])
    assert isinstance(result, Retryable)
    assert not isinstance(result, Suspected)


async def test_a_message_the_guard_fails_on_alone_is_rejected(bench: Bench) -> None:
    """After two tries, with the golden texts passing after each: guard-refused."""
    bench.classifier.scripts = [dies_of_poison]
    result = await verified(bench).score_alone(message("poison"))
    assert isinstance(result, Rejected)
    assert result.reason is Reason.GUARD_REFUSED
    poisoned = [rows for rows in bench.classifier.calls if WORD_IDS["poison"] in rows[0]]
    assert len(poisoned) == 2


async def test_while_the_guard_is_away_nothing_is_rejected_alone(bench: Bench) -> None:
    """An outage during the trial only postpones it."""
    bench.classifier.scripts = [by_words, away]
    result = await verified(bench).score_alone(message("poison"))
    assert isinstance(result, Retryable)


async def test_alone_means_that_no_other_call_is_in_flight(bench: Bench) -> None:
    """A trial waits for the scorings under way, and later ones wait for it."""
    order: list[str] = []

    class Slow(TrustingScorer):
        async def score(self, messages: Sequence[Any]) -> list[Scored]:
            order.append(f"+{messages[0].message_id}")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            order.append(f"-{messages[0].message_id}")
            return await super().score(messages)

    inner = bench.scorer()
    slow = Slow(inner.guards, bench.classifier, bench.call_limits, bench.clock)
    scorer = VerifiedScorer(slow, Served(), bench.health)
    await scorer.verify()
    order.clear()
    named = [message("fine", message_id=name) for name in ("a", "b", "c", "d")]
    await asyncio.gather(
        scorer.score([named[0]]), scorer.score([named[1]]),
        scorer.score_alone(named[2]), scorer.score([named[3]]),
    )  # fmt: skip
    assert order == ["+a", "+b", "-a", "-b", "+c", "-c", "+d", "-d"]


async def test_poison_is_buried_and_its_neighbours_are_scored(bench: Bench) -> None:
    """Five attempts together, then each alone: one dead letter, the others have verdicts."""
    bench.classifier.scripts = [dies_of_poison]
    flow = flow_of(bench)
    await flow.judge(bench.batch(flow, "fine", "poison", "unsafe"))
    (letter,) = letters(bench)
    assert letter["dlq_reason"] == b"guard-refused"
    assert b"alone" in letter["dlq_detail"]
    assert sorted(v.verdict_id for v in bench.verdicts()) == ["prompts:0:0", "prompts:0:2"]
    audits = [codec.decode_audit(r.value or b"", bench.schemas) for r in bench.publisher.records[1:]
              if r.topic == TOPICS.audit]  # fmt: skip
    assert {audit.attempt for audit in audits} == {6}
    assert bench.commits.acknowledged == [0, 1, 2]


async def test_an_outage_does_not_count_against_a_message(bench: Bench) -> None:
    """Twenty attempts without any answer, then a verdict: never tried alone."""
    left = 20

    def script(rows: Sequence[Sequence[int]]) -> Any:
        nonlocal left
        left -= 1
        return away(rows) if left > 0 else by_words(rows)

    bench.classifier.scripts = [by_words, script]
    flow = flow_of(bench)
    await flow.judge(bench.batch(flow, "fine", "unsafe"))
    assert letters(bench) == []
    assert len(bench.verdicts()) == 2


async def test_one_row_of_no_numbers_is_poison(bench: Bench) -> None:
    """A lone text that scores NaN each time ends as a dead letter, not as a stuck partition."""
    flow = flow_of(bench)
    await flow.judge(bench.batch(flow, "nan"))
    assert [letter["dlq_reason"] for letter in letters(bench)] == [b"guard-refused"]
    assert bench.commits.acknowledged == [0]


async def test_poison_leaves_the_worker_ready(bench: Bench) -> None:
    """The guard answers everybody else, so readiness does not blame it."""
    states: list[bool] = []

    def script(rows: Sequence[Sequence[int]]) -> Any:
        states.append(bench.health.ready()[0])
        return dies_of_poison(rows)

    bench.classifier.scripts = [script]
    flow = flow_of(bench)
    await flow.judge(bench.batch(flow, "poison"))
    assert False not in states[1:]  # before the first golden text it is not


async def test_other_served_weights_than_the_cards_are_named(bench: Bench, guard: Guard) -> None:
    """Both digests and the remedy."""
    with pytest.raises(Misconfigured, match="guard tiny with weights sha256:bbb") as wrong:
        await verified(bench, Served("sha256:bbb")).verify()
    assert guard.card.model_digest in wrong.value.message
    assert "same model repository" in wrong.value.remedy


async def test_a_golden_text_that_scores_otherwise_is_named(bench: Bench) -> None:
    """Which text, which category, both scores."""
    bench.classifier.scripts = [lambda rows: -by_words(rows)]
    with pytest.raises(Misconfigured, match=r"golden text 1 0\.98\d\d for unsafe.* 0\.02"):
        await verified(bench).verify()


async def test_a_refused_golden_text_is_a_misconfiguration(bench: Bench) -> None:
    """A model that will not take its own golden text is not the card's."""
    refused = Rejected(Reason.GUARD_REFUSED, "wrong shape", remedy="")
    bench.classifier.scripts = [lambda _: refused]
    with pytest.raises(Misconfigured, match="refuses golden text 1: wrong shape"):
        await VerifiedScorer(bench.scorer(), Served(), Health(["guard"])).verify()


async def test_another_version_passes_the_golden_texts_before_its_scores_count(
    bench: Bench,
) -> None:
    """A replaced model of the same guard goes on; verdicts name the version that judged."""
    scorer = verified(bench)
    await scorer.score([message("fine")])
    calls = len(bench.classifier.calls)
    bench.classifier.version = "8"
    (result,) = await scorer.score([message("fine")])
    assert isinstance(result, tuple)
    assert result[0].guard.version == "8"
    assert len(bench.classifier.calls) > calls + 1, "no golden text was asked"
    calls = len(bench.classifier.calls)
    await scorer.score([message("fine")])
    assert len(bench.classifier.calls) == calls + 1


async def test_another_version_with_other_weights_judges_nothing(bench: Bench) -> None:
    """Its first answers are thrown away: the guard is not what its card says."""
    scorer = verified(bench)
    await scorer.score([message("fine")])
    bench.classifier.version = "8"
    bench.classifier.scripts = [lambda rows: -by_words(rows)]
    with pytest.raises(Misconfigured, match="golden text 1"):
        await scorer.score([message("fine")])


async def test_what_another_version_scored_waits_while_its_golden_texts_do(bench: Bench) -> None:
    """Unproved scores are asked for again, and nobody is suspected."""
    scorer = verified(bench)
    await scorer.score([message("fine")])
    bench.classifier.version = "8"
    bench.classifier.scripts = [by_words, away]
    (result,) = await scorer.score([message("fine")])
    assert isinstance(result, Retryable)
    assert not isinstance(result, Suspected)
    assert "has not passed" in result.message


async def test_a_model_exchanged_under_the_same_version_is_seen_under_load(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traffic shows that it answers; its digest is asked for all the same."""
    monkeypatch.setattr(selftest, "CANARY_EVERY_S", 0.0)
    served = Served()
    scorer = verified(bench, served)
    await scorer.score([message("fine")])
    served.digest = "sha256:other"
    with pytest.raises(Misconfigured, match="sha256:other"):
        async with asyncio.timeout(5.0):
            await scorer.watch()
