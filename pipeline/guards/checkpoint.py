"""A Hugging Face checkpoint, from a folder or the hub, and its reference answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import Misconfigured
from pipeline.guards import llama_guard
from pipeline.guards.llama_guard import Turns
from pipeline.guards.prefill import Answers
from pipeline.guards.recipes import Recipe
from pipeline.guards.templates import ChatTemplate
from pipeline.tokenization import Tokenizer

DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_UNCHUNKED: Final = 8192
"""The chunk of a Llama 4 that names none: the size its family was trained with."""
_POSITIONS_AFTER_PADDING: Final = frozenset({"camembert", "data2vec-text", "ibert", "mpnet"})
"""Encoders, besides the RoBERTas, whose first position is the one after the padding's id."""
_COMPLETE: Final = "Give a complete checkpoint: download it again, or save it with save_pretrained"
_WANTED: Final = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model", "LICENSE*", "*.md"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint's folder, configuration, and tokenizer."""

    source: str
    folder: Path
    config: dict[str, Any]
    tokenizer: Tokenizer

    @property
    def architecture(self) -> str:
        """The class that the checkpoint was saved from."""
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def text_config(self) -> dict[str, Any]:
        """The language model's part of the configuration."""
        return dict(self.config.get("text_config") or self.config)

    @property
    def chunk(self) -> int | None:
        """Tokens that Llama 4's chunked layers see together; None for other models."""
        config = self.text_config
        if not str(config.get("model_type", "")).startswith("llama4"):
            return None
        # Llama Guard 4 is published with null, which the library's chunked layers cannot take;
        # no window may be longer, so any chunk that holds one gives the same answers.
        unchunked = min(_UNCHUNKED, self.positions or _UNCHUNKED)
        return int(config.get("attention_chunk_size") or unchunked)

    @property
    def positions(self) -> int | None:
        """Tokens of the longest input, None where the configuration names no limit."""
        config = self.text_config
        limit = config.get("max_position_embeddings")
        if not isinstance(limit, int) or limit <= 0:
            return None
        kind = str(config.get("model_type", ""))
        if "roberta" in kind or kind in _POSITIONS_AFTER_PADDING:
            padding = config.get("pad_token_id")
            return limit - (padding if isinstance(padding, int) else 1) - 1
        return limit

    def model(self, precision: str) -> Any:
        """The model, ready to be asked; raises Misconfigured when it cannot be loaded."""
        import transformers

        transformers.utils.logging.disable_progress_bar()
        kind = getattr(transformers, self.architecture, None)
        if kind is None:
            raise Misconfigured(
                f"{self.source} is a {self.architecture}, which transformers does not know",
                remedy="Install a newer transformers, or correct the checkpoint",
            )
        # Eager attention takes the mask as it is given, which export relies on.
        options = {"dtype": DTYPES[precision], "attn_implementation": "eager"}
        model = _loaded(kind, self.folder, options).eval()
        model = getattr(model, "language_model", model)
        if self.chunk is not None:
            model.config.attention_chunk_size = self.chunk
        return model


def _loaded(kind: Any, folder: Path, options: dict[str, Any]) -> Any:
    """A model with the folder's weights and no others; raises Misconfigured with a remedy."""
    # A weight of another shape is to be named below; otherwise the library refers to its log.
    options = options | {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        model, told = kind.from_pretrained(str(folder), **options)
    except Exception as error:  # of files, safetensors and torch: they share no base class
        reason = str(error).partition("\n")[0]
        raise Misconfigured(
            f"the weights in {folder} cannot be loaded ({type(error).__name__}: {reason})",
            remedy=_COMPLETE,
        ) from error
    # The library fills these with random numbers; a weight tied to another is not among them.
    if random := sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])}):
        raise Misconfigured(
            f"the checkpoint in {folder} lacks {random[0]}, or has it in another shape",
            remedy=_COMPLETE,
        )
    return model


def open_checkpoint(source: str, recipe: Recipe) -> Checkpoint:
    """The checkpoint in a folder or on the hub; raises Misconfigured with a remedy."""
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(source)
    path = folder / "config.json"
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured(
            f"{path} cannot be read ({type(error).__name__})",
            remedy="Give the folder of a Hugging Face checkpoint, or its name on the hub",
        ) from error
    if not (folder / "tokenizer.json").is_file():
        raise Misconfigured(
            f"{folder} has no tokenizer.json",
            remedy="Save the fast tokenizer there: AutoTokenizer...save_pretrained(folder)",
        )
    found = Checkpoint(
        source=source,
        folder=folder,
        config=config,
        tokenizer=Tokenizer(folder / "tokenizer.json"),
    )
    _check_kind(found, recipe)
    return found


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=_WANTED))
    except Exception as error:  # the hub's errors share no base with the network's
        raise Misconfigured(
            f"{source} is no folder here and could not be downloaded ({type(error).__name__})",
            remedy="Correct the path; for a gated model accept its licence and set HF_TOKEN",
        ) from error


def _check_kind(found: Checkpoint, recipe: Recipe) -> None:
    causal = recipe.activation == "safe-unsafe"
    wanted = ("ForCausalLM", "ForConditionalGeneration") if causal else "ForSequenceClassification"
    if not found.architecture.endswith(wanted):
        raise Misconfigured(
            f"{found.source} is a {found.architecture}, not a {recipe.name} guard",
            remedy="Correct --as",
        )
    classes = len(found.config.get("id2label") or {}) or int(found.config.get("num_labels", 2))
    if not causal and classes != len(recipe.classes):
        raise Misconfigured(
            f"{found.source} has {classes} classes, the card would name {len(recipe.classes)}",
            remedy="Name every class in order with --classes, '-' for one without a label",
        )
    if not causal:
        borders(found)
    _check_length(found, recipe)


def _check_length(found: Checkpoint, recipe: Recipe) -> None:
    """Raise Misconfigured where a window would be longer than the model can take."""
    for what, limit in (("chunks", found.chunk), ("input", found.positions)):
        if limit is not None and recipe.max_length > limit:
            raise Misconfigured(
                f"windows of {recipe.max_length} tokens exceed the model's {what} of {limit}",
                remedy=f"Give --max-length {limit} or less",
            )


def borders(found: Checkpoint) -> tuple[int, int]:
    """The ids a classifier wants before and after a text, as its tokenizer says."""
    from tokenizers import Tokenizer as Raw

    raw = Raw.from_file(str(found.folder / "tokenizer.json"))
    # Saved along with some tokenizers; padding would be counted as special tokens.
    raw.no_padding()
    raw.no_truncation()
    ids = raw.encode("").ids
    if len(ids) != 2:
        raise Misconfigured(
            f"{found.source} puts {len(ids)} special tokens around a text, not two",
            remedy="Only classifiers with one token before and one after can be framed",
        )
    return ids[0], ids[1]


def chat_template(found: Checkpoint, recipe: Recipe) -> tuple[ChatTemplate, str]:
    """The template to use, and a remark when the checkpoint's own is not the pinned one."""
    assert recipe.version is not None
    pinned = llama_guard.template(recipe.version, recipe.excluded)
    try:
        own = llama_guard.derived(lambda turns: _rendered(found, turns, recipe.excluded))
        own = llama_guard.without(own, recipe.excluded)
    except Exception as error:  # jinja's errors, the library's, and those of `derived`
        reason = type(error).__name__
        return (
            pinned,
            f"the checkpoint shows no usable chat template ({reason}): the pinned is used",
        )
    if own == pinned:
        return pinned, ""
    return own, f"the checkpoint's own template differs from the pinned {recipe.name}: it is used"


def _rendered(found: Checkpoint, turns: Turns, excluded: Sequence[str]) -> str:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(found.folder))
    # Older templates take a turn's text, newer ones a list of parts: the text must show.
    for shaped in (_as_parts, _as_text):
        try:
            text = tokenizer.apply_chat_template(
                shaped(turns),
                tokenize=False,
                # The assistant's header belongs to the prompt, also where it is asked for.
                add_generation_prompt=True,
                excluded_category_keys=list(excluded),
            )
        except Exception as error:  # as above
            failure = error
            continue
        if all(said in text for _, said in turns) and "'type'" not in text:
            return str(text)
        failure = ValueError("a turn is missing")
    raise failure


def _as_parts(turns: Turns) -> list[dict[str, Any]]:
    return [{"role": who, "content": [{"type": "text", "text": text}]} for who, text in turns]


def _as_text(turns: Turns) -> list[dict[str, Any]]:
    return [{"role": who, "content": text} for who, text in turns]


def reference(
    model: Any, windows: Sequence[Sequence[int]], found: Answers | None, *, every: bool
) -> NDArray[np.float32]:
    """What the unchanged model says, one unpadded window at a time; [rows, classes]."""
    rows = []
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([list(window)], device=model.device)
            logits = model(input_ids=ids).logits[0].float()
            rows.append(logits if found is None else _answer(logits, found, every=every))
    return np.stack([row.cpu().numpy() for row in rows]).astype(np.float32)


def _answer(logits: torch.Tensor, found: Answers, *, every: bool) -> torch.Tensor:
    verdict, category = logits[len(logits) - 1 - found.behind], logits[-1]
    parts = [verdict[[found.safe, found.unsafe]], category[list(found.categories)]]
    if every:
        parts.append(torch.logsumexp(verdict, 0, keepdim=True))
    return torch.cat(parts)
