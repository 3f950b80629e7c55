"""The committed first stage: its files agree, it fits the default guard, its golden texts hold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.cascade import put_first
from pipeline.guards import cards
from pipeline.guards.framing import frame
from pipeline.scoring import Guard
from pipeline.selftest import _message
from pipeline.tokenization import Tokenizer

MODELS = Path(__file__).resolve().parents[2] / "triton_models"


@pytest.fixture(scope="module")
def card() -> cards.Card:
    """The shipped card."""
    return cards.load(MODELS / "first")


def test_card_and_profile_name_the_committed_weights(card: cards.Card) -> None:
    """Both carry the digest of model.onnx."""
    found = cards.sha256_of(MODELS / "first" / "1" / "model.onnx")
    assert card.model_digest == found
    config = (MODELS / "first" / "config.pbtxt").read_text()
    assert re.findall(r"sha256:[0-9a-f]{64}", config) == [found]


def test_it_runs_the_same_code_as_the_default_guard() -> None:
    """One file to review, in two places because Triton wants it so."""
    codes = {(MODELS / name / "1" / "model.py").read_bytes() for name in ("first", "default")}
    assert len(codes) == 1


def test_it_fits_before_the_default_guard(card: cards.Card) -> None:
    """Same tokenizer, windows, labels and roles."""
    full = cards.load(MODELS / "default")
    guards = [Guard(card=each, tokenizer=Tokenizer(each.tokenizer)) for each in (card, full)]
    (placed,) = put_first(guards[0], guards[1:])
    assert placed.first is guards[0]


def test_what_it_settles_lies_below_every_threshold_of_the_default_guard(card: cards.Card) -> None:
    """Else a settled window could cross a threshold that the full guard never judged."""
    full = cards.load(MODELS / "default")
    lowest = min(cut for point in full.operating_points.values() for cut in point.values())
    assert 0 < card.settles_below < lowest


def test_golden_texts_score_as_the_card_says(card: cards.Card) -> None:
    """The committed graph, tokenizer and calibration belong together, alone and in a batch."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(
        str(MODELS / "first" / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    messages = [_message(golden) for golden in card.golden]
    windows = frame(card, Tokenizer(card.tokenizer), messages, max_windows=1)
    width = max(len(each.windows[0]) for each in windows) + 5
    ids = np.zeros((len(windows), width), np.int64)
    mask = np.zeros_like(ids)
    for row, each in enumerate(windows):
        ids[row, : len(each.windows[0])] = each.windows[0]
        mask[row, : len(each.windows[0])] = 1
        alone = np.array([each.windows[0]], np.int64)
        feed = {"input_ids": alone, "attention_mask": np.ones_like(alone)}
        scores = card.scores(session.run(None, feed)[0])[0]
        expected = [card.golden[row].scores[label] for label in card.labels]
        assert scores == pytest.approx(expected, abs=1e-3)
    together = card.scores(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
    golden = [[text.scores[label] for label in card.labels] for text in card.golden]
    assert together == pytest.approx(np.array(golden), abs=1e-3)
