"""Checkpoints of the production guards' architectures, tiny and with random weights.

They say nothing sensible; what is tested is that every form of a guard says
the same. The tokenizers split text as the real ones do: `safe`, `unsafe`, and
the numbers up to 14 are single tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from pipeline.guards import llama_guard
from pipeline.guards.llama_guard import VERSIONS

SPECIALS = {
    3: ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>"],
    4: ["<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|pad|>"],
}
_WORDS = ["safe", "unsafe", "user", "assistant", "User", "Agent", "Task", "crimes", "soup", "bomb"]
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENCODER_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hate", "love", "soup", "ignore", "all"]


def llama(folder: Path, *, generation: int = 3, chat_template: str | None = None) -> Path:
    """A Llama Guard's shape: grouped heads, scaled rotations, or Llama 4's layers."""
    import torch
    import transformers

    tokenizer = _byte_pairs(generation)
    _save_tokenizer(tokenizer, folder, SPECIALS[generation][-1], chat_template)
    torch.manual_seed(generation)
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 3,
        "pad_token_id": 4,
    }
    if generation == 4:
        text = transformers.Llama4TextConfig(
            **sizes, num_hidden_layers=4, intermediate_size_mlp=96, moe_layers=[],
            num_local_experts=1, attention_chunk_size=None,  # as Llama Guard 4 is published
        )  # fmt: skip
        model = transformers.Llama4ForCausalLM(text)
    else:
        rope = {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
        }  # fmt: skip
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sizes, num_hidden_layers=2, rope_parameters=rope)
        )
    model.save_pretrained(folder)
    return folder


def deberta(folder: Path) -> Path:
    """A Prompt Guard 2's shape: relative positions in buckets, two classes."""
    import torch
    import transformers

    torch.manual_seed(1)
    config = transformers.DebertaV2Config(
        vocab_size=len(_ENCODER_WORDS), hidden_size=48, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, relative_attention=True, position_buckets=16,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, type_vocab_size=0, num_labels=2, initializer_range=0.5,
    )  # fmt: skip
    _save_tokenizer(_whole_words(), folder, "[PAD]")
    transformers.DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return folder


def bert(folder: Path, *, classes: int = 3) -> Path:
    """Any text classifier from the hub: BERT's shape."""
    import torch
    import transformers

    torch.manual_seed(2)
    config = transformers.BertConfig(
        vocab_size=len(_ENCODER_WORDS), hidden_size=48, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, num_labels=classes, initializer_range=0.5,
    )  # fmt: skip
    _save_tokenizer(_whole_words(), folder, "[PAD]")
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def byte_pairs(folder: Path, generation: int = 3) -> Path:
    """Only the tokenizer of a Llama Guard; returns its file."""
    path = folder / "tokenizer.json"
    _byte_pairs(generation).save(str(path))
    return path


def _byte_pairs(generation: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Knowing the template's own words keeps it about as short as it really is.
    prompts = [llama_guard.render(each, [("user", "")]) for each in VERSIONS.values()]
    lines = [*prompts, *_WORDS, *(f" {word}" for word in _WORDS), *(f"S{n}" for n in range(1, 15))]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=SPECIALS[generation],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [line for line in lines for _ in range(9)] + ["\n\n"] * 9, trainer
    )
    return tokenizer


def _whole_words() -> Tokenizer:
    words = {word: number for number, word in enumerate(_ENCODER_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _save_tokenizer(
    tokenizer: Tokenizer, folder: Path, pad: str, chat_template: str | None = None
) -> None:
    import transformers

    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad)
    wrapped.chat_template = chat_template
    wrapped.save_pretrained(folder)
