"""The default guard's network: four BERT layers and one linear head.

Attention is written out instead of calling a fused kernel: the ONNX graph then
holds plain MatMul and Softmax, and heads this small train faster so too.
There is no dropout inside the layers: its random numbers cost a third of the
training time on a processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

VOCABULARY = 30522
WIDTH = 384
HEADS = 12
INNER = 1536
POSITIONS = 128
# The lowest ones: the upper two serve the comparison of sentences.
KEPT_LAYERS = (0, 1, 2, 3)
# Word table and lowest layer keep what the checkpoint knows of words that no
# training row holds; leaving them alone saves a sixth of the training too.
FROZEN_LAYERS = 1
# Finite so that the graph survives half precision.
MASKED = -1e4


class Block(nn.Module):
    """One post-norm transformer layer, `[batch, length, WIDTH]` to itself."""

    def __init__(self) -> None:
        """Create the layer with random weights."""
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.up = nn.Linear(WIDTH, INNER)
        self.down = nn.Linear(INNER, WIDTH)
        self.output_norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def attend(self, hidden: Tensor, penalty: Tensor) -> Tensor:
        """Mix positions; `penalty` `[batch, 1, 1, length]` hides padding."""
        batch, length = hidden.shape[0], hidden.shape[1]
        size = WIDTH // HEADS
        parts = self.qkv(hidden).view(batch, length, 3, HEADS, size).permute(2, 0, 3, 1, 4)
        # The queries are scaled, not the products: a product has more numbers than a query.
        weights = (parts[0] / math.sqrt(size)) @ parts[1].transpose(-1, -2) + penalty
        mixed = torch.softmax(weights, dim=-1) @ parts[2]
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return joined

    def forward(self, hidden: Tensor, penalty: Tensor) -> Tensor:
        """Return the layer's output."""
        hidden = self.attention_norm(hidden + self.attend(hidden, penalty))
        inner = self.down(nn.functional.gelu(self.up(hidden)))
        output: Tensor = self.output_norm(hidden + inner)
        return output


class GuardEncoder(nn.Module):
    """Token ids to one logit per label.

    Pools by mean and by maximum: the mean reads a text's tone, the maximum
    keeps one injected sentence from drowning in a long document.
    """

    def __init__(self, labels: int, dropout: float = 0.1) -> None:
        """Create an untrained network with `labels` outputs."""
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block() for _ in KEPT_LAYERS)
        self.head = nn.Linear(2 * WIDTH, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map int64 `[batch, length]` ids and mask to `[batch, labels]`."""
        mask = attention_mask.to(self.head.weight.dtype)
        penalty = ((1.0 - mask) * MASKED)[:, None, None, :]
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.norm(self.words(input_ids) + self.positions(places))
        for block in self.blocks:
            hidden = block(hidden, penalty)
        weight = mask[:, :, None]
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        peak = (hidden + (1.0 - weight) * MASKED).max(1).values
        logits: Tensor = self.head(self.dropout(torch.cat([mean, peak], dim=1)))
        return logits


def from_minilm(folder: Path, labels: int) -> GuardEncoder:
    """Start from a MiniLM-L6 checkpoint, keeping `KEPT_LAYERS` of its six.

    `folder` holds `model.safetensors` in Hugging Face's BERT naming. The head
    stays random. Raises FileNotFoundError where the checkpoint is missing.
    """
    source = load_file(str(folder / "model.safetensors"))
    model = GuardEncoder(labels)
    state = model.state_dict()
    state["words.weight"] = source["embeddings.word_embeddings.weight"]
    # The guard never sends token types, so type 0 belongs to the position.
    kinds = source["embeddings.token_type_embeddings.weight"][0]
    places = source["embeddings.position_embeddings.weight"][:POSITIONS]
    state["positions.weight"] = places + kinds
    for end in ("weight", "bias"):
        state[f"norm.{end}"] = source[f"embeddings.LayerNorm.{end}"]
        for index, layer in enumerate(KEPT_LAYERS):
            copied = _layer(source, f"encoder.layer.{layer}", end)
            state |= {f"blocks.{index}.{name}.{end}": value for name, value in copied.items()}
    model.load_state_dict(state)
    return model


def freeze(model: GuardEncoder) -> None:
    """Leave the embeddings and the lowest `FROZEN_LAYERS` as they are."""
    for part in (model.words, model.positions, model.norm, *model.blocks[:FROZEN_LAYERS]):
        part.requires_grad_(False)


def averaged(members: Sequence[GuardEncoder]) -> GuardEncoder:
    """The network whose weights are the members' mean; they must have begun alike."""
    states = [member.state_dict() for member in members]
    mean = {name: torch.stack([each[name] for each in states]).mean(0) for name in states[0]}
    model = GuardEncoder(members[0].head.out_features)
    model.load_state_dict(mean)
    return model


def _layer(source: dict[str, Tensor], prefix: str, end: str) -> dict[str, Tensor]:
    """Rename one BERT layer's tensors; query, key and value become one."""
    triple = [source[f"{prefix}.attention.self.{part}.{end}"] for part in ("query", "key", "value")]
    return {
        "qkv": torch.cat(triple),
        "out": source[f"{prefix}.attention.output.dense.{end}"],
        "attention_norm": source[f"{prefix}.attention.output.LayerNorm.{end}"],
        "up": source[f"{prefix}.intermediate.dense.{end}"],
        "down": source[f"{prefix}.output.dense.{end}"],
        "output_norm": source[f"{prefix}.output.LayerNorm.{end}"],
    }
