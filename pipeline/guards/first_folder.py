"""Write the first stage's folder: card, Triton profile, README, figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.guards import cards
from pipeline.guards.cards import Card
from pipeline.guards.data import LABELS

NAME: Final = "first"
_SHARED: Final = ("tokenizer.json", "1/model.py")
SOURCE: Final = (
    "trained by pipeline/guards/first_stage.py from the word table of all-MiniLM-L6-v2"
    " (Apache-2.0); data in NOTICE"
)
_BEGIN, _END = "<!-- figures -->", "<!-- /figures -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was fitted on one half of dev and measured on the other."""

    scale: Sequence[float]
    bias: Sequence[float]
    points: Mapping[str, Mapping[str, float]]
    below: float
    held: Mapping[str, float]
    harmless: Mapping[str, float]
    ranking: Sequence[Mapping[str, Any]]
    attacks: Mapping[str, Mapping[str, float]]


def weights(folder: Path) -> Path:
    """Where a guard's folder keeps its graph."""
    return folder / "1" / "model.onnx"


def write(
    output: Path,
    full_folder: Path,
    full: Card,
    figures: Figures,
    golden: Sequence[Mapping[str, Any]],
) -> None:
    """Write everything but the graph; the framing is the full guard's own."""
    for name in _SHARED:
        shutil.copyfile(full_folder / name, output / name)
    model = cards.sha256_of(weights(output))
    (output / "config.pbtxt").write_text(_config(model), encoding="utf-8")
    head = _card(figures, full, model, cards.sha256_of(output / "tokenizer.json"))
    framing = _framing(full_folder / "card.toml")
    parts = [head, framing, *(_golden(text) for text in golden)]
    (output / "card.toml").write_text("\n".join(parts), encoding="utf-8")
    (output / "figures.json").write_text(
        json.dumps(asdict(figures), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    _into_readme(output / "README.md", figures)


def _card(figures: Figures, full: Card, model: str, tokenizer: str) -> str:
    held = figures.held
    lines = [
        "# Written by pipeline/guards/first_stage.py; README.md says what was measured.",
        "[guard]",
        f'name = "{NAME}"',
        'version = "1"',
        'title = "Sluice first stage: settles windows that are clearly harmless"',
        'taxonomy = "sluice-1"',
        f"labels = {json.dumps(LABELS)}",
        'activation = "sigmoid"',
        'roles = ["prompt", "completion"]',
        'license = "Apache-2.0"',
        f"source = {json.dumps(SOURCE)}",
        "",
        "[cascade]  # a window whose scores are all below is settled; shares of held-out dev",
        f"settles_below = {figures.below}",
        f'before = "{full.name}"',
        f'before_model = "{full.model_digest}"',
        f"lost = {held['balanced: lost']:.4f}",
        f"settled = {held['settled']:.4f}",
        f"settled_harmless = {held['settled_harmless']:.4f}",
        "",
        "[calibration]  # score = sigmoid(logit * scale + bias)",
        f"scale = {json.dumps(figures.scale)}",
        f"bias = {json.dumps(figures.bias)}",
        "",
        "[digests]",
        f'model = "{model}"',
        f'tokenizer = "{tokenizer}"',
        "",
        *(line for name, point in figures.points.items() for line in _point(name, point)),
    ]
    return "\n".join(lines)


def _point(name: str, point: Mapping[str, float]) -> Iterator[str]:
    yield f"[operating_points.{name}]"
    yield from (f"{label} = {value:.4f}" for label, value in point.items())
    yield ""


def _framing(full_card: Path) -> str:
    """The full guard's [input] section, word for word: both must see the same windows."""
    lines = full_card.read_text(encoding="utf-8").splitlines()
    start = lines.index("[input]")
    end = next(i for i in range(start + 1, len(lines)) if lines[i].startswith("["))
    return "\n".join(lines[start:end])


def _golden(text: Mapping[str, Any]) -> str:
    pairs = zip(LABELS, text["scores"], strict=True)
    scores = ", ".join(f"{name} = {value:.4f}" for name, value in pairs)
    return "\n".join(
        [
            "[[golden]]",
            f'role = "{text["role"]}"',
            f"text = {json.dumps(text['text'], ensure_ascii=False)}",
            f"prompt = {json.dumps(text['prompt'], ensure_ascii=False)}",
            f"scores = {{ {scores} }}",
            "tolerance = 0.02",
            "",
        ]
    )


def _config(model: str) -> str:
    return f"""# CPU profile: ONNX Runtime inside Triton's python backend.
name: "{NAME}"
backend: "python"
max_batch_size: 64
input [
  {{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] }},
  {{ name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {len(LABELS)} ] }}
]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
# One thread: a window is too little work to share between two.
parameters [
  {{ key: "digest" value: {{ string_value: "{model}" }} }},
  {{ key: "chunk_rows" value: {{ string_value: "32" }} }},
  {{ key: "threads" value: {{ string_value: "1" }} }}
]
"""


def _into_readme(path: Path, figures: Figures) -> None:
    """Replace the tables between the README's two markers."""
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{_BEGIN}\n{_END}\n"
    before, rest = text.split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    path.write_text(f"{before}{_BEGIN}\n\n{_tables(figures)}\n{_END}{after}", encoding="utf-8")


def _tables(figures: Figures) -> str:
    held = figures.held
    points = [name.partition(":")[0] for name in held if name.endswith(": lost")]
    parts = [
        f"Settles a window whose scores are all below {figures.below:g}.",
        "",
        "### Before the default guard, held-out half of dev",
        "",
        _settled(held),
        "",
        "| the default guard's point | caught | of them lost | false alarms | of them lost |",
        "|---|---|---|---|---|",
        *(
            _row(
                name,
                f"{held[f'{name}: positives caught']:,.0f}",
                f"{held[f'{name}: lost']:.2%}",
                f"{held[f'{name}: false alarms']:,.0f}",
                f"{held[f'{name}: false alarms lost']:.2%}",
            )
            for name in points
        ),
        "",
        "### Harmless windows settled, by source",
        "",
        "| source | settled |",
        "|---|---|",
        *(f"| {name} | {share:.1%} |" for name, share in figures.harmless.items()),
        "",
        "### CyberSecEval, share flagged at the balanced point (never trained on)",
        "",
        "| set: flagged by | texts | windows settled | alone | behind the first stage |",
        "|---|---|---|---|---|",
        *(
            _row(
                name,
                f"{row['texts']:,.0f}",
                f"{row['windows settled']:.1%}",
                f"{row['flagged alone']:.3f}",
                f"{row['flagged behind']:.3f}",
            )
            for name, row in figures.attacks.items()
        ),
        "",
        "### As a guard by itself, held-out half of dev",
        "",
        "| label | n | positive | AUPRC | ROC-AUC |",
        "|---|---|---|---|---|",
        *(
            _row(
                row["label"],
                row["n"],
                row["positive"],
                f"{row['AUPRC']:.3f}",
                f"{row['ROC-AUC']:.3f}",
            )
            for row in figures.ranking
        ),
    ]
    return "\n".join(parts) + "\n"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _settled(held: Mapping[str, float]) -> str:
    return (
        f"{held['windows']:,.0f} windows; settled {held['settled']:.1%},"
        f" of the harmless ones {held['settled_harmless']:.1%}."
    )
