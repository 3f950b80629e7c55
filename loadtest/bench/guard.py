"""The guard that the benchmark's stand-in plays: a card, a tokenizer, no weights.

A word-level tokenizer is cheap, so that what is subtracted for tokenising is
small against what is left.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from loadtest.bench.messages import WORDS
from loadtest.bench.standin import LOGIT

NAME: Final = "standin"
LABELS: Final = (*(f"S{number}" for number in range(1, 15)), "unsafe", "injection", "jailbreak")
MODEL_DIGEST: Final = "sha256:" + hashlib.sha256(b"no weights").hexdigest()
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

_CARD: Final = """
[guard]
name = "{name}"
version = "1"
title = "Answers at once, and always the same"
taxonomy = "sluice-1"
labels = {labels}
activation = "sigmoid"
roles = ["prompt", "completion"]
license = "Apache-2.0"
source = "loadtest/bench"

[input]
tokenizer = "tokenizer.json"
max_length = 128
overlap = 16
context_length = 16
pad_id = 0
cls_id = 2
sep_id = 3
buckets = [16, 32, 64, 128]
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
scores = {{ unsafe = {score}, S10 = {score} }}
"""


def make(repository: Path) -> Path:
    """Write the guard's folder into a model repository; returns the repository."""
    folder = repository / NAME
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer().to_str()
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "card.toml").write_text(
        _CARD.format(
            name=NAME,
            labels=list(LABELS),
            ones=[1.0] * len(LABELS),
            zeros=[0.0] * len(LABELS),
            model=MODEL_DIGEST,
            tokenizer="sha256:" + hashlib.sha256(tokenizer.encode()).hexdigest(),
            score=round(1 / (1 + math.exp(-LOGIT)), 4),
        )
    )
    return repository


def _tokenizer() -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
