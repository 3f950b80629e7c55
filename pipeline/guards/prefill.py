r"""Llama Guard as a classifier: one forward pass, no decoding.

The prompt ends in the forced answer `\n\nunsafe\nS`. In a causal model a
position does not see what follows it, so this one pass holds both answers:
before `unsafe` stand the logits of `safe` and `unsafe`, and after `S` those of
the category numbers, each as step-by-step generation would have given them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import Misconfigured
from pipeline.tokenization import Tokenizer

# Below every real logit, and still a number in fp16, unlike the lowest fp32.
_HIDDEN = -1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Token ids of the answers, and how many tokens follow the verdict's position."""

    safe: int
    unsafe: int
    categories: tuple[int, ...]
    behind: int


def answers(tokenizer: Tokenizer, continuation: str, codes: Sequence[str]) -> Answers:
    """The ids behind `safe`, `unsafe` and each `S<n>`; Misconfigured if one takes two tokens."""
    said, unsafe = tokenizer.encode([continuation.lstrip("\n"), "unsafe"])
    numbers = [_only(tokenizer, code.removeprefix("S"), before="S") for code in codes]
    if said[: len(unsafe)] != unsafe:
        raise Misconfigured("the tokenizer joins the answer to what follows", remedy=_REMEDY)
    return Answers(
        safe=_only(tokenizer, "safe"),
        unsafe=_only(tokenizer, "unsafe"),
        categories=tuple(numbers),
        behind=len(said),
    )


_REMEDY = "Only tokenizers that keep safe, unsafe and 1 to 14 as single tokens can be used"


def _only(tokenizer: Tokenizer, word: str, before: str = "") -> int:
    prefix, whole = tokenizer.encode([before, before + word])
    rest = whole[len(prefix) :]
    if whole[: len(prefix)] != prefix or len(rest) != 1:
        raise Misconfigured(f"the tokenizer does not keep {word!r} as one token", remedy=_REMEDY)
    return rest[0]


class SinglePrefill(nn.Module):
    """A causal language model cut down to the logits of its possible answers.

    `input_ids` and `attention_mask` INT64 [rows, length], padded on the right,
    give FP32 [rows, 2 + categories (+ 1)]: safe, unsafe, each category and,
    with `every`, the logarithm of the sum over the vocabulary.
    """

    def __init__(self, model: Any, found: Answers, *, every: bool) -> None:
        super().__init__()
        self.backbone = model.model
        self.behind = found.behind
        self.every = every
        # Llama 4's layers look masks up by their kind; windows are shorter than its chunks.
        self.by_kind = model.config.model_type.startswith("llama4")
        head = model.lm_head.weight.detach()
        self.register_buffer("verdict_rows", head[[found.safe, found.unsafe]].clone())
        self.register_buffer("category_rows", head[list(found.categories)].clone())
        self.register_buffer("all_rows", head if every else head[:0])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The logits described above; the mask only tells where each row ends."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask: Any = self._causal(positions).expand(input_ids.shape[0], 1, -1, -1)
        if self.by_kind:
            mask = {"full_attention": mask, "chunked_attention": mask}
        hidden = self.backbone(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions[None],
            use_cache=False,
        ).last_hidden_state
        last = attention_mask.sum(dim=1) - 1
        verdict, category = _at(hidden, last - self.behind), _at(hidden, last)
        parts = [verdict @ self.verdict_rows.T, category @ self.category_rows.T]
        if self.every:
            parts.append(torch.logsumexp((verdict @ self.all_rows.T).float(), 1, keepdim=True))
        return torch.cat([part.float() for part in parts], dim=1)

    def _causal(self, positions: Tensor) -> Tensor:
        """Additive mask [1, 1, length, length]: nobody looks ahead, padding lies ahead."""
        hidden = (positions[None, :] > positions[:, None]).to(self.verdict_rows.dtype)
        return (hidden * _HIDDEN)[None, None]


def _at(hidden: Tensor, position: Tensor) -> Tensor:
    """Hidden states [rows, width] at one position of each row."""
    index = position[:, None, None].expand(-1, 1, hidden.shape[2])
    return torch.gather(hidden, 1, index)[:, 0]


class Classifier(nn.Module):
    """A sequence classifier with the contract's inputs and output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits FP32 [rows, classes]."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits.float()


@contextmanager
def exportable(model: Any) -> Iterator[None]:
    """Llama 4 rotates in complex numbers, which ONNX lacks: real ones while exporting."""
    if not model.config.model_type.startswith("llama4"):
        yield
        return
    from transformers.models.llama4 import modeling_llama4

    rotate, embedding = modeling_llama4.apply_rotary_emb, model.model.rotary_emb
    modeling_llama4.apply_rotary_emb = _rotate
    model.model.rotary_emb = _Angles(embedding)
    try:
        yield
    finally:
        modeling_llama4.apply_rotary_emb, model.model.rotary_emb = rotate, embedding


class _Angles(nn.Module):
    """Cosine and sine [rows, length, width / 2, 2] in place of complex rotations."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, _: Tensor, position_ids: Tensor) -> Tensor:
        """The angles of each position."""
        frequencies = self.embedding.inv_freq[None, None, :].float()
        angles = position_ids[:, :, None].float() * frequencies
        return torch.stack([angles.cos(), angles.sin()], -1) * self.embedding.attention_scaling


def _rotate(queries: Tensor, keys: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    cosine, sine = angles[..., 0][:, :, None, :], angles[..., 1][:, :, None, :]

    def turned(values: Tensor) -> Tensor:
        pairs = values.float().reshape(*values.shape[:-1], -1, 2)
        real, imaginary = pairs[..., 0], pairs[..., 1]
        both = [real * cosine - imaginary * sine, real * sine + imaginary * cosine]
        return torch.stack(both, -1).flatten(3).type_as(values)

    return turned(queries), turned(keys)
