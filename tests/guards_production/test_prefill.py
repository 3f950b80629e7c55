"""One pass over a forced answer gives what step-by-step generation would have given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.events import Kind, Message
from pipeline.guards import cards, llama_guard

from .conftest import Made

pytestmark = pytest.mark.guards

CODES = llama_guard.categories(llama_guard.LLAMA_GUARD_3_8B)
VERSION = llama_guard.LLAMA_GUARD_3_8B


@pytest.fixture(scope="module")
def loaded(llama_guard_3: Made) -> Any:
    """The checkpoint, its whole model, its answers, and the model cut down to them."""
    torch = pytest.importorskip("torch")
    from pipeline.guards import checkpoint, prefill

    found = checkpoint.open_checkpoint(str(llama_guard_3.checkpoint), llama_guard_3.recipe)
    model = found.model("fp32")
    answers = prefill.answers(found.tokenizer, llama_guard.ANSWER, CODES)
    return torch, found, model, answers, prefill.SinglePrefill(model, answers, every=True).eval()


def generated(loaded: Any, prompt: str) -> tuple[Any, Any]:
    """Log-probabilities of the next token after the empty line, and after `unsafe` and `S`.

    The model generates with its cache, one token after another, as a server
    of Llama Guard does; the sampled token is replaced by the one asked about.
    """
    torch, found, model, _, _ = loaded
    raw = found.tokenizer._tokenizer
    raw.encode_special_tokens = False
    ids = raw.encode(prompt + "\n\n", add_special_tokens=False).ids
    raw.encode_special_tokens = True
    steps = []
    with torch.inference_mode():
        step = model(input_ids=torch.tensor([ids]), use_cache=True)
        steps.append(step.logits[0, -1])
        for token in found.tokenizer.encode(["unsafe\nS"])[0]:
            step = model(
                input_ids=torch.tensor([[token]]),
                past_key_values=step.past_key_values,
                use_cache=True,
            )
            steps.append(step.logits[0, -1])
    return torch.log_softmax(steps[0], 0), torch.log_softmax(steps[-1], 0)


@pytest.mark.parametrize("kind", list(Kind))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.sampled_from(["soup", "bomb soup", "Wie koche ich Suppe?", "1 2 3", "🍞"]),
    excluded=st.sets(st.sampled_from(CODES), max_size=len(CODES) - 1),
)
def test_scores_equal_step_by_step_generation(
    loaded: Any, llama_guard_3: Made, kind: Kind, text: str, excluded: set[str]
) -> None:
    """For prompts and completions and any excluded categories: P(unsafe), P(category)."""
    torch, found, _, answers, cut_down = loaded
    recipe = llama_guard_3.recipe.without(sorted(excluded))
    card = _card(llama_guard_3, recipe)
    prompt = "How?" if kind is Kind.COMPLETION else None
    turns = [("user", prompt), ("assistant", text)] if prompt else [("user", text)]
    first, last = generated(loaded, llama_guard.render(VERSION, turns, tuple(excluded)))

    (framed,) = _frame(card, found.tokenizer, kind, text, prompt)
    (window,) = framed.windows
    ids = torch.tensor([[*window, 0, 0, 0]])
    mask = torch.tensor([[1] * len(window) + [0, 0, 0]])
    with torch.inference_mode():
        logits = cut_down(ids, mask).numpy()
    scores = dict(zip(card.labels, card.scores(logits)[0].tolist(), strict=True))

    safe, unsafe = first[answers.safe].item(), first[answers.unsafe].item()
    expected = np.exp(unsafe - np.logaddexp(safe, unsafe))
    assert scores["unsafe"] == pytest.approx(expected, abs=1e-5)
    health = card.health(logits)
    assert health is not None
    assert health[0] == pytest.approx(np.logaddexp(safe, unsafe), abs=1e-4)
    kept = [code for code in CODES if code not in excluded]
    by_code = {c: last[t].item() for c, t in zip(CODES, answers.categories, strict=True)}
    every = np.logaddexp.reduce([by_code[code] for code in kept])
    for code in kept:
        share = expected * np.exp(by_code[code] - every)
        assert scores[code] == pytest.approx(share, abs=1e-5), code
    assert not excluded & set(scores)


def test_padding_and_neighbours_do_not_change_an_answer(loaded: Any) -> None:
    """A row alone equals the same row padded among others."""
    torch, _, _, _, cut_down = loaded
    torch.manual_seed(7)
    ids = torch.randint(5, 300, (3, 40))
    mask = torch.ones_like(ids)
    for row, length in enumerate((40, 23, 9)):
        mask[row, length:] = 0
    with torch.inference_mode():
        together = cut_down(ids, mask)
        for row, length in enumerate((40, 23, 9)):
            alone = cut_down(ids[row : row + 1, :length], mask[row : row + 1, :length])
            assert torch.allclose(together[row], alone[0], atol=1e-4)


def test_a_tokenizer_that_splits_the_answer_is_refused(tmp_path: Path) -> None:
    """`S10` must not become `1` and `0`: one position could not tell it from S1."""
    from tokenizers import Tokenizer as Raw
    from tokenizers import models, pre_tokenizers

    from pipeline.errors import Misconfigured
    from pipeline.guards import prefill
    from pipeline.tokenization import Tokenizer

    letters = {character: n for n, character in enumerate("abcdefghijklmnopqrstuvwxyzS0123456789")}
    raw = Raw(models.BPE(vocab=letters, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(Misconfigured, match="as one token"):
        prefill.answers(Tokenizer(tmp_path / "tokenizer.json"), "unsafe\nS", CODES)


def _card(made: Made, recipe: Any) -> cards.Card:
    """The exported card as an export with this recipe would have written it."""
    from dataclasses import replace

    card = cards.load(made.folder)
    ones = np.ones(len(recipe.labels), dtype=np.float32)
    return replace(
        card,
        labels=recipe.labels,
        excluded=recipe.excluded,
        template=llama_guard.template(VERSION, recipe.excluded),
        scale=ones,
        bias=0 * ones,
    )


def _frame(card: cards.Card, tokenizer: Any, kind: Kind, text: str, prompt: str | None) -> Any:
    from pipeline.guards.framing import frame

    message = Message(message_id="1", kind=kind, text=text, prompt=prompt)
    return frame(card, tokenizer, [message], max_windows=4)
