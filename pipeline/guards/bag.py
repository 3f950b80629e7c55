"""The first stage's network: words, pairs of neighbours, two poolings, one hidden layer.

It has no attention: a window costs about a hundredth of the full guard's. That
is enough to tell what is clearly harmless, and that is all it is asked.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.guards.encoder import MASKED, VOCABULARY

WIDTH = 64
PAIRS = 1 << 16
HIDDEN = 256
# Primes far from a power of two: neighbours spread evenly over the pairs' table.
_LEFT, _RIGHT = 31_337, 7_919
_WORD_SPREAD, _PAIR_SPREAD = 0.3, 0.02


class Bag(nn.Module):
    """Token ids to one logit per label, the order of words seen in pairs only."""

    def __init__(self, labels: int, dropout: float = 0.3) -> None:
        """Create an untrained network with `labels` outputs."""
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.pairs = nn.Embedding(PAIRS, WIDTH)
        nn.init.normal_(self.pairs.weight, 0.0, _PAIR_SPREAD)
        self.up = nn.Linear(4 * WIDTH, HIDDEN)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(HIDDEN, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 `[batch, length]` ids and mask to `[batch, labels]`; length >= 2."""
        words, pairs = self.words(input_ids), self.pairs(pair_ids(input_ids))
        pooled = pool(words, attention_mask) + pool(pairs, attention_mask[:, 1:])
        hidden = nn.functional.gelu(self.up(torch.cat(pooled, dim=1)))
        logits: Tensor = self.head(self.dropout(hidden))
        return logits


class PackedBag(nn.Module):
    """A trained bag with int8 tables, one scale per row: what ships."""

    def __init__(self, bag: Bag) -> None:
        """Round the tables; everything else is shared."""
        super().__init__()
        self.bag = bag
        for name, table in (("words", bag.words.weight), ("pairs", bag.pairs.weight)):
            scale = table.detach().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127.0
            self.register_buffer(name, (table.detach() / scale).round().to(torch.int8))
            self.register_buffer(f"{name}_scale", scale)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As `Bag.forward`."""
        near = pair_ids(input_ids)
        words = self.words[input_ids].float() * self.words_scale[input_ids]
        pairs = self.pairs[near].float() * self.pairs_scale[near]
        pooled = pool(words, attention_mask) + pool(pairs, attention_mask[:, 1:])
        logits: Tensor = self.bag.head(nn.functional.gelu(self.bag.up(torch.cat(pooled, dim=1))))
        return logits


def pair_ids(input_ids: Tensor) -> Tensor:
    """A row of the pairs' table for each two neighbours, `[batch, length - 1]`."""
    return (input_ids[:, :-1] * _LEFT + input_ids[:, 1:] * _RIGHT) % PAIRS


def pool(hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over what the mask shows."""
    shown = mask.to(hidden.dtype)[:, :, None]
    mean = (hidden * shown).sum(1) / shown.sum(1).clamp(min=1.0)
    peak = (hidden + (1.0 - shown) * MASKED).amax(1)
    return mean, peak


def from_minilm(folder: Path, labels: int) -> Bag:
    """Start from the principal components of MiniLM's word table; the rest is random."""
    source = load_file(str(folder / "model.safetensors"))["embeddings.word_embeddings.weight"]
    centred = source - source.mean(0)
    _, _, axes = torch.pca_lowrank(centred, q=WIDTH, niter=4, center=False)
    projected = centred @ axes
    bag = Bag(labels)
    bag.words.weight.data.copy_(projected / projected.std() * _WORD_SPREAD)
    return bag
