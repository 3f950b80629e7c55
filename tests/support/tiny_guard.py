"""A guard small enough to reason about: one word, one category.

It is a real model in the real Triton (python backend, numpy), with a card, a
tokenizer and golden texts; only its judgement is a toy. The words `slow`,
`nan`, `fault` and `die` make it misbehave, for tests of what then happens, and
so do the orders of `order`, for every text at once.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

LABELS = [*(f"S{number}" for number in range(1, 15)), "unsafe", "injection", "jailbreak"]
CATEGORY_OF = {
    "hate": "S10",
    "weapon": "S9",
    "steal": "S2",
    "inject": "injection",
    "dan": "jailbreak",
}
_LOW = -4.0
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *CATEGORY_OF, "slow", "nan", "fault", "die"]

_CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 64
input [
  {{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }},
  {{ name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }}
]
output [ {{ name: "logits" data_type: TYPE_FP32 dims: [ 17 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
parameters [ {{ key: "digest" value {{ string_value: "{digest}" }} }} ]
"""

_MODEL = """
import os
import time

import numpy as np
import triton_python_backend_utils as pb

WORDS = {words!r}
LABELS = {labels!r}
CATEGORY_OF = {category_of!r}


class TritonPythonModel:
    def initialize(self, args):
        self._orders = os.path.join(args["model_repository"], "orders")

    def execute(self, requests):
        kind, value = self._order()
        if kind == "pause":
            time.sleep(float(value))
        return [self._disobey(kind) or self._answer(request, kind) for request in requests]

    def _order(self):
        try:
            with open(self._orders) as orders:
                return (orders.read().split() + ["", ""])[:2]
        except FileNotFoundError:
            return "", ""

    def _disobey(self, kind):
        if kind == "error":
            return pb.InferenceResponse(error=pb.TritonError("an error was ordered"))
        if kind == "shape":
            return pb.InferenceResponse([pb.Tensor("logits", np.zeros((1, 3), dtype=np.float32))])
        return None

    def _answer(self, request, kind):
        ids = pb.get_input_tensor_by_name(request, "input_ids").as_numpy()
        has = {{word: (ids == number).any(axis=1) for number, word in enumerate(WORDS)}}
        if has["die"].any():
            os._exit(1)
        if has["fault"].any():
            return pb.InferenceResponse(error=pb.TritonError("fault asked for"))
        if has["slow"].any():
            time.sleep(0.5)
        logits = np.full((len(ids), len(LABELS)), {low}, dtype=np.float32)
        for word, label in CATEGORY_OF.items():
            logits[has[word], LABELS.index(label)] = 4.0
            if label.startswith("S"):
                logits[has[word], LABELS.index("unsafe")] = 4.0
        logits[has["nan"]] = np.nan
        if kind == "nan":
            logits[:] = np.nan
        return pb.InferenceResponse([pb.Tensor("logits", logits)])
"""

_CARD = """
[guard]
name = "{name}"
version = "1"
title = "A toy guard for tests"
taxonomy = "sluice-1"
labels = {labels}
activation = "sigmoid"
roles = ["prompt", "completion"]
license = "Apache-2.0"
source = "tests"

[input]
tokenizer = "tokenizer.json"
max_length = 32
overlap = 8
context_length = 8
pad_id = 0
cls_id = 2
sep_id = 3
buckets = [8, 16, 32]
template = "[CLS] text [SEP]"

[calibration]
scale = {ones}
bias = {zeros}

[digests]
model = "{model}"
tokenizer = "{tokenizer}"

[operating_points.balanced]
unsafe = 0.5

[[golden]]
role = "prompt"
text = "a plain sentence"
scores = {{ unsafe = {low}, S10 = {low} }}

[[golden]]
role = "completion"
text = "full of hate"
prompt = "what is it"
scores = {{ unsafe = {high}, S10 = {high}, S9 = {low} }}
"""


def make(repository: Path, name: str = "tiny") -> Path:
    """Write the guard into a model repository; returns the repository."""
    folder = repository / name
    model = _write_model(folder, version=1, low=_LOW)
    tokenizer = _tokenizer().to_str()
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "config.pbtxt").write_text(_CONFIG.format(name=name, digest=_digest(model)))
    (folder / "card.toml").write_text(
        _CARD.format(
            name=name,
            labels=LABELS,
            ones=[1.0] * len(LABELS),
            zeros=[0.0] * len(LABELS),
            model=_digest(model),
            tokenizer=_digest(tokenizer),
            low=_sigmoid(_LOW),
            high=_sigmoid(4.0),
        )
    )
    return repository


def order(repository: Path, what: str, name: str = "tiny") -> None:
    """Make a served guard misbehave at once, whatever the text; "" ends it.

    `pause S` before each answer, `error`, `shape` (wrong), or `nan`.
    """
    partial = repository / name / "orders.partial"
    partial.write_text(what)
    partial.replace(repository / name / "orders")


def add_version(repository: Path, version: int, *, low: float = -4.0, name: str = "tiny") -> None:
    """Put another version beside the first; another `low` makes it another model."""
    folder = repository / name
    text = _write_model(folder, version=version, low=low)
    (folder / "config.pbtxt").write_text(_CONFIG.format(name=name, digest=_digest(text)))


def remove_version(repository: Path, version: int, name: str = "tiny") -> None:
    """Take a version away again; what was first is served after the next load."""
    folder = repository / name
    shutil.rmtree(folder / str(version))
    text = (folder / "1" / "model.py").read_text()
    (folder / "config.pbtxt").write_text(_CONFIG.format(name=name, digest=_digest(text)))


def _write_model(folder: Path, *, version: int, low: float) -> str:
    model = _MODEL.format(words=WORDS, labels=LABELS, category_of=CATEGORY_OF, low=low)
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / str(version) / "model.py").write_text(model)
    return model


def _tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _sigmoid(logit: float) -> float:
    return round(1 / (1 + math.exp(-logit)), 4)
