"""The guard's card and the README's tables, from the measured figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.guards.batches import SPEC
from pipeline.guards.data import LABELS

TEMPLATE = (
    "prompt=[CLS] text [SEP]; completion=[CLS] prompt[:32] [SEP] text [SEP]; "
    "window=128; overlap=32; score=max over windows"
)
SOURCE = "trained by pipeline/guards/train.py from all-MiniLM-L6-v2 (Apache-2.0); data in NOTICE"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def card(
    figures: Mapping[str, Any], digests: Mapping[str, str], golden: Sequence[Mapping[str, Any]]
) -> str:
    """Render `card.toml`."""
    head = [
        "# Written by pipeline/guards/train.py; README.md says what was measured.",
        "[guard]",
        'name = "default"',
        'version = "1"',
        'title = "Sluice default guard: hazards S1-S14, injection, jailbreak"',
        'taxonomy = "sluice-1"',
        f"labels = {json.dumps(LABELS)}",
        'activation = "sigmoid"',
        'roles = ["prompt", "completion"]',
        'license = "Apache-2.0"',
        f"source = {json.dumps(SOURCE)}",
        "",
        "[input]",
        'tokenizer = "tokenizer.json"',
        f"max_length = {SPEC.max_length}",
        f"overlap = {SPEC.overlap}",
        f"context_length = {SPEC.context_length}",
        "pad_id = 0",
        f"cls_id = {SPEC.cls_id}",
        f"sep_id = {SPEC.sep_id}",
        "buckets = [16, 32, 64, 96, 128]",
        f"template = {json.dumps(TEMPLATE)}",
        "normalise = true",
        "",
        "[calibration]  # score = sigmoid(logit * scale + bias)",
        f"scale = {json.dumps(figures['scale'])}",
        f"bias = {json.dumps(figures['bias'])}",
        "",
        "[digests]",
        *[f'{name} = "{value}"' for name, value in digests.items()],
    ]
    points = [
        line
        for name, values in figures["points"].items()
        for line in ("", f"[operating_points.{name}]", *_pairs(values))
    ]
    return "\n".join([*head, *points, *[line for text in golden for line in _golden(text)]]) + "\n"


def _pairs(values: Mapping[str, float]) -> list[str]:
    """TOML lines `label = number`."""
    return [f"{name} = {value:.4f}" for name, value in values.items()]


def _golden(text: Mapping[str, Any]) -> list[str]:
    """TOML lines of one golden text."""
    pairs = zip(LABELS, text["scores"], strict=True)
    scores = ", ".join(f"{name} = {value:.4f}" for name, value in pairs)
    return [
        "",
        "[[golden]]",
        f'role = "{text["role"]}"',
        f"text = {json.dumps(text['text'], ensure_ascii=False)}",
        f"prompt = {json.dumps(text['prompt'], ensure_ascii=False)}",
        f"scores = {{ {scores} }}",
        "tolerance = 0.02",
    ]


def into_readme(path: Path, figures: Mapping[str, Any]) -> None:
    """Replace the tables between the README's two markers."""
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n\n{tables(figures)}\n{END}{after}", encoding="utf-8")


def tables(figures: Mapping[str, Any]) -> str:
    """Markdown tables of every figure, in a fixed order."""
    parts = []
    for title, rows in figures["tables"].items():
        if rows:
            parts += [f"### {title}", "", _table(rows), ""]
    parts += ["### Forms of the graph", "", _table(figures["forms"]), ""]
    parts += [f"Shipped form: `{figures['chosen']}`.", ""]
    return "\n".join(parts)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One Markdown table; the first row's keys are the columns."""
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(row[column]) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """A number with three decimals, NaN as a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)
