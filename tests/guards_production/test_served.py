"""Exported guards in the real Triton, asked by the worker's own scorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import wiring
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.triton import TritonClassifier
from pipeline.asking import CallLimits
from pipeline.embedded import EmbeddedTriton
from pipeline.events import Kind, Message
from pipeline.guards import cards, verify
from pipeline.health import Health
from pipeline.scoring import Guard, Scorer
from pipeline.selftest import VerifiedScorer
from pipeline.settings import TritonSettings
from pipeline.tokenization import Tokenizer

from .conftest import Made

pytestmark = pytest.mark.guards

LIMITS = CallLimits(max_rows=8, max_tokens=2048, max_windows=32, in_flight=2)
TEXTS = (
    (Kind.PROMPT, "How do I cook soup?", ""),
    (Kind.PROMPT, "bomb soup " * 300, ""),
    (Kind.COMPLETION, "Slowly, love.", "How do I cook soup?"),
    (Kind.COMPLETION, "hate " * 200, "ignore all"),
)


@pytest.fixture(scope="module")
async def served(
    llama_guard_3: Made,
    prompt_guard: Made,
    own_guard: Made,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """One Triton that serves Llama Guard, Prompt Guard and a guard of one's own."""
    folders = [each.folder for each in (llama_guard_3, prompt_guard, own_guard)]
    names = [folder.name for folder in folders]
    home = tmp_path_factory.mktemp("triton")
    async with EmbeddedTriton(folders[0].parent, names, home) as server:
        yield TritonSettings(url=server.grpc_address)


def guard(made: Made) -> Guard:
    """A guard as the worker loads it."""
    card = cards.load(made.folder)
    return Guard(card=card, tokenizer=Tokenizer(card.tokenizer))


@pytest.mark.parametrize("name", ["llama_guard_3", "prompt_guard", "own_guard"])
async def test_the_scorer_gives_the_checkpoint_s_scores(
    served: TritonSettings, name: str, request: pytest.FixtureRequest
) -> None:
    """Self-test passed, long texts covered, and the unchanged model's scores."""
    from pipeline.guards import parity

    made: Made = request.getfixturevalue(name)
    chosen = guard(made)
    texts = [each for each in TEXTS if each[0] in chosen.card.roles]
    async with TritonClassifier(served) as triton:
        scorer = Scorer([chosen], triton, LIMITS, SystemClock())
        verified = VerifiedScorer(scorer, triton, Health(("guard",)))
        await verified.verify()
        scored = await scorer.score([_message(*each) for each in texts])
    expected = parity.reference(chosen.card, str(made.checkpoint), "fp32")(texts)
    for (judgement,), row in zip(scored, expected, strict=True):
        found = [judgement.scores[label] for label in chosen.card.labels]
        assert found == pytest.approx(row.tolist(), abs=2e-4)
        assert judgement.coverage.complete
        assert judgement.template_digest == chosen.card.template_digest


async def test_guards_of_every_kind_judge_a_message_together(
    served: TritonSettings, llama_guard_3: Made, prompt_guard: Made, own_guard: Made
) -> None:
    """A prompt is judged by all three, a completion by those with that role."""
    guards = [guard(each) for each in (llama_guard_3, prompt_guard, own_guard)]
    async with TritonClassifier(served) as triton:
        scorer = Scorer(guards, triton, LIMITS, SystemClock())
        prompt, completion = await scorer.score([_message(*TEXTS[0]), _message(*TEXTS[2])])
    assert [each.guard.name for each in prompt] == ["lg3", "pg2", "own"]
    assert [each.guard.name for each in completion] == ["lg3", "own"]


async def test_health_is_reported_as_a_metric(served: TritonSettings, llama_guard_3: Made) -> None:
    """An operator sees log(P(safe) + P(unsafe)) of the last call."""
    from pipeline import metrics

    async with TritonClassifier(served) as triton:
        scorer = Scorer([guard(llama_guard_3)], triton, LIMITS, SystemClock())
        await scorer.score([_message(*TEXTS[0])])
    # Random weights know no answer: far below 0 is what a wrong template would show.
    assert metrics.GUARD_HEALTH.labels("lg3")._value.get() < -1


async def test_weights_beside_the_graph_are_checked_when_loaded(
    prompt_guard: Made, tmp_path: Path
) -> None:
    """A data file that is not the graph's own keeps the guard from being served."""
    from pipeline.embedded import EmbeddedFailed

    from .conftest import export

    made = export(
        prompt_guard.checkpoint, "pg2", prompt_guard.recipe, tmp_path / "m", one_file_bytes=1000
    )
    data = made.folder / "1" / "model.onnx.data"
    async with EmbeddedTriton(tmp_path / "m", ["pg2"], tmp_path / "home"):
        pass
    spoilt = bytearray(data.read_bytes())
    spoilt[100] ^= 255
    data.write_bytes(spoilt)
    with pytest.raises(EmbeddedFailed, match=r"model\.onnx\.data"):
        async with EmbeddedTriton(tmp_path / "m", ["pg2"], tmp_path / "home"):
            pass


def test_the_worker_loads_exported_guards_from_settings(
    llama_guard_3: Made, prompt_guard: Made
) -> None:
    """`guards.names` is all that a worker needs to be told."""
    from pipeline.settings import GuardSettings

    settings = GuardSettings(repository=llama_guard_3.folder.parent, names=("pg2", "lg3"))
    assert [each.card.name for each in wiring.load_guards(settings)] == ["pg2", "lg3"]


def _message(role: Kind, text: str, prompt: str) -> Message:
    return Message(message_id="1", kind=role, text=text, prompt=prompt or None)


def test_probes_hold_both_roles() -> None:
    """Verification asks prompts and completions."""
    assert {role for role, _, _ in verify.PROBES} == set(Kind)
