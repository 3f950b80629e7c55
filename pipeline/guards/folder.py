"""Write a guard's folder: card, both Triton profiles, and the code of the CPU profile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.guards.recipes import Recipe
from pipeline.resources import shipped

MAX_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an export found out about a guard, for its card."""

    name: str
    version: str
    source: str
    pad_id: int
    cls_id: int | None
    sep_id: int | None
    vocabulary: int
    model: str
    tokenizer: str
    template: str | None
    golden: Sequence[Mapping[str, Any]]
    tolerance: float


def write_card(folder: Path, recipe: Recipe, facts: Facts) -> None:
    """Write `card.toml`."""
    (folder / "card.toml").write_text(_card(recipe, facts), encoding="utf-8")


def write_profiles(folder: Path, recipe: Recipe, facts: Facts) -> None:
    """Write `config.pbtxt`, `configs/tensorrt.pbtxt` and `1/model.py`."""
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "config.pbtxt").write_text(_cpu(recipe, facts), encoding="utf-8")
    (folder / "configs" / "tensorrt.pbtxt").write_text(_gpu(recipe, facts), encoding="utf-8")
    shutil.copyfile(shipped("triton_models", "default", "1", "model.py"), folder / "1" / "model.py")


def _card(recipe: Recipe, facts: Facts) -> str:
    chat = recipe.version is not None
    ones, zeros = [1.0] * len(recipe.labels), [0.0] * len(recipe.labels)
    layout = "template.json" if chat else "[first] text [last]; score=max over windows"
    sections: list[tuple[str, dict[str, Any]]] = [
        (
            "guard",
            {
                "name": facts.name,
                "version": facts.version,
                "title": recipe.title,
                "taxonomy": "sluice-1",
                "labels": list(recipe.labels),
                "activation": recipe.activation,
                "classes": list(recipe.classes),
                "excluded": list(recipe.excluded),
                "roles": list(recipe.roles),
                "license": recipe.license,
                "source": facts.source,
            },
        ),
        (
            "input",
            {
                "layout": "chat-template" if chat else "windows",
                "tokenizer": "tokenizer.json",
                "max_length": recipe.max_length,
                "overlap": recipe.overlap,
                "context_length": recipe.context_length,
                "pad_id": facts.pad_id,
                "cls_id": facts.cls_id,
                "sep_id": facts.sep_id,
                "buckets": list(recipe.buckets),
                "template": layout,
            },
        ),
        ("calibration", {"scale": ones, "bias": zeros}),
        (
            "digests",
            {"model": facts.model, "tokenizer": facts.tokenizer, "template": facts.template},
        ),
        # The threshold the publishers use; pick your own on your own traffic. A Llama Guard
        # decides by its first label, and its categories share that score; a classifier's
        # labels each decide for themselves.
        ("operating_points.balanced", dict.fromkeys(recipe.labels[: 1 if chat else None], 0.5)),
    ]
    head = "# Written by `sluice guard export`; the scores below are the checkpoint's own.\n"
    parts = [head, *(_section(f"[{name}]", values) for name, values in sections)]
    parts += [
        _section("[[golden]]", {**golden, "tolerance": facts.tolerance}) for golden in facts.golden
    ]
    return "\n".join(parts)


def _section(title: str, values: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]
    return "\n".join((title, *lines)) + "\n"


def _value(value: Any) -> str:
    """A TOML value; its strings are escaped as JSON's are, save that no surrogates stand there."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    # A file's name that is not UTF-8 becomes lone surrogates; TOML also has no bare DEL.
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
    return text.replace("\x7f", "\\u007f")


def _tensors(recipe: Recipe) -> str:
    return f"""max_batch_size: {MAX_ROWS}
input [
  {{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }},
  {{ name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {len(recipe.classes)} ] }}
]
"""


def _cpu(recipe: Recipe, facts: Facts) -> str:
    parameters = {
        "digest": facts.model,
        "chunk_rows": "8",
        "threads": "0",
        "max_tokens": str(recipe.max_length),
        "vocabulary": str(facts.vocabulary),
    }
    listed = ",\n".join(
        f'  {{ key: "{key}" value: {{ string_value: "{value}" }} }}'
        for key, value in parameters.items()
    )
    return f"""# CPU profile: ONNX Runtime inside Triton's python backend.
name: "{facts.name}"
backend: "python"
{_tensors(recipe)}instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
parameters [
{listed}
]
"""


def _gpu(recipe: Recipe, facts: Facts) -> str:
    profiles = ", ".join(f'"{number}"' for number in range(len(recipe.buckets)))
    return f"""# GPU profile, chosen with --model-config-name=tensorrt. 1/model.plan is built by
# `sluice guard compile`, one optimisation profile per length bucket of the card.
name: "{facts.name}"
platform: "tensorrt_plan"
{_tensors(recipe)}instance_group [ {{ count: 1 kind: KIND_GPU profile: [ {profiles} ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
parameters [
  {{ key: "digest" value: {{ string_value: "{facts.model}" }} }}
]
"""
