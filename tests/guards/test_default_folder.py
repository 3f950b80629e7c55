"""The committed guard folder: card, weights, tokenizer and code agree."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipeline.guards import cards
from pipeline.windows import cut

FOLDER = Path(__file__).resolve().parents[2] / "triton_models" / "default"
LIMIT_BYTES = 25_000_000


@pytest.fixture(scope="module")
def card() -> cards.Card:
    """The shipped card."""
    return cards.load(FOLDER)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`model.py` loaded with a stand-in for Triton's own module."""
    pytest.importorskip("onnxruntime")
    fake = types.ModuleType("triton_python_backend_utils")
    fake.TritonModelException = type("TritonModelException", (Exception,), {})  # type: ignore[attr-defined]
    fake.TritonError = str  # type: ignore[attr-defined]
    fake.Tensor = lambda name, values: types.SimpleNamespace(name=name, values=values)  # type: ignore[attr-defined]
    fake.InferenceResponse = lambda tensors, error=None: types.SimpleNamespace(  # type: ignore[attr-defined]
        tensors=tensors, error=error
    )
    fake.get_input_tensor_by_name = lambda request, name: types.SimpleNamespace(  # type: ignore[attr-defined]
        as_numpy=lambda: request[name]
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    spec = importlib.util.spec_from_file_location("default_guard_model", FOLDER / "1" / "model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_graph_is_measured_as_it_is_served(served: Any) -> None:
    """The same fusions are off where a form is chosen and where it runs."""
    pytest.importorskip("torch")
    from pipeline.guards import quantise

    assert list(quantise.SLOW_FUSIONS) == served.SLOW_FUSIONS


def started(served: Any, digest: str) -> Any:
    """An initialised model whose configuration names `digest`."""
    config = {"parameters": {"digest": {"string_value": digest}, "threads": {"string_value": "1"}}}
    model = served.TritonPythonModel()
    model.initialize(
        {
            "model_repository": str(FOLDER),
            "model_version": "1",
            "model_config": json.dumps(config),
        }
    )
    return model


@pytest.mark.parametrize(
    ("cores", "instances", "share"), [(2, 2, 1), (8, 2, 4), (1, 2, 1), (6, 0, 6)]
)
def test_instances_share_the_cores(
    served: Any, monkeypatch: pytest.MonkeyPatch, cores: int, instances: int, share: int
) -> None:
    """Each has its part, and one at least; without a group there is one instance."""
    monkeypatch.setattr(served.os, "sched_getaffinity", lambda _pid: range(cores))
    group = [{"count": instances}] if instances else []
    assert served._fair_share(json.dumps({"instance_group": group})) == share


def test_both_profiles_name_the_committed_weights(card: cards.Card) -> None:
    """Card, CPU profile and GPU profile carry the digest of model.onnx."""
    found = "sha256:" + hashlib.sha256((FOLDER / "1" / "model.onnx").read_bytes()).hexdigest()
    assert card.model_digest == found
    for name in ("config.pbtxt", "configs/tensorrt.pbtxt"):
        assert re.findall(r"sha256:[0-9a-f]{64}", (FOLDER / name).read_text()) == [found]


def test_the_folder_stays_small_enough_to_clone() -> None:
    """Everything committed for the guard is below 25 MB."""
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) < LIMIT_BYTES


def test_a_typed_separator_is_plain_text(card: cards.Card) -> None:
    """A user who writes [SEP] or [CLS] cannot forge a border."""
    ids = Tokenizer.from_file(str(card.tokenizer)).encode("a [SEP] b [CLS]").ids
    assert not {card.window.sep_id, card.window.cls_id} & set(ids)


def test_the_tokenizer_neither_cuts_nor_pads(card: cards.Card) -> None:
    """A long text keeps all its tokens and gets no specials."""
    assert len(Tokenizer.from_file(str(card.tokenizer)).encode("word " * 1000).ids) == 1000


def test_golden_texts_score_as_the_card_says(card: cards.Card, served: Any) -> None:
    """Every golden score is reproduced within its tolerance."""
    model = started(served, card.model_digest)
    tokenizer = Tokenizer.from_file(str(card.tokenizer))
    for golden in card.golden:
        text, prompt = (tokenizer.encode(part).ids for part in (golden.text, golden.prompt))
        windows = cut(text, prompt, card.window, max_windows=64).windows
        request = {
            "input_ids": np.array(windows, np.int64),
            "attention_mask": np.ones((len(windows), len(windows[0])), np.int64),
        }
        (answer,) = model.execute([request])
        found = card.scores(answer.tensors[0].values).max(axis=0)
        expected = [golden.scores[name] for name in card.labels]
        assert found == pytest.approx(expected, abs=golden.tolerance)


def test_a_score_does_not_depend_on_its_batch(card: cards.Card, served: Any) -> None:
    """Alone, padded or among others: the same within 0.001."""
    model = started(served, card.model_digest)
    ids = np.random.default_rng(5).integers(1000, 20000, (11, 24))
    mask = np.ones_like(ids)
    wide, wide_mask = (np.pad(values, ((0, 0), (0, 104))) for values in (ids, mask))
    requests = [{"input_ids": ids[:1], "attention_mask": mask[:1]}]
    requests += [{"input_ids": ids, "attention_mask": mask}]
    requests += [{"input_ids": wide, "attention_mask": wide_mask}]
    alone, among, padded = (
        card.scores(answer.tensors[0].values)[0] for answer in model.execute(requests)
    )
    assert np.abs(alone - among).max() <= 1e-3
    assert np.abs(alone - padded).max() <= 1e-3


def test_a_bad_request_fails_alone(card: cards.Card, served: Any) -> None:
    """Its neighbours in the batch are answered."""
    model = started(served, card.model_digest)
    good = {"input_ids": np.ones((1, 8), np.int64), "attention_mask": np.ones((1, 8), np.int64)}
    bad = {"input_ids": np.full((1, 8), 99999), "attention_mask": np.ones((1, 8), np.int64)}
    answers = model.execute([good, bad, good])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert "99999" not in answers[1].error


def test_other_weights_are_refused(card: cards.Card, served: Any) -> None:
    """A digest that differs stops the load and names both digests."""
    wrong = "sha256:" + "0" * 64
    with pytest.raises(Exception, match="restore the weights") as caught:
        started(served, wrong)
    assert card.model_digest in str(caught.value)
    assert wrong in str(caught.value)
