"""TensorRT engines of the production guards at full size, on the GPU at hand.

    python -m pipeline.guards.gpu_engines [--models pg2-86m lg3-1b lg3-8b] [--out table.md]

The architectures are the published ones, the weights random: nothing can be
said about verdicts, but speed and parity do not depend on what the weights
mean. For every model: export in bf16 (encoders fp16), compile with one profile
per length, compare with the unchanged model, then time batches of each length.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pipeline.errors import Misconfigured
from pipeline.guards import compile as compiler

ROWS: Final = (1, 8, 32)
LENGTHS: Final = {"pg2-22m": (64, 128, 512), "pg2-86m": (64, 128, 512)}
CHAT_LENGTHS: Final = (256, 512, 1024)
WARM_UP: Final = 5
REPEATS: Final = 30
HALF_BOUND: Final = 0.5
"""Largest difference of a logit between the engine and PyTorch, both in half precision."""

_DEBERTA: Final[dict[str, Any]] = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "num_labels": 2,
    "num_hidden_layers": 12,
}
_LLAMA: Final[dict[str, Any]] = {
    "vocab_size": 128256,
    "head_dim": 64,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}
# The shapes that the model cards and the bases they name publish.
MODELS: Final[dict[str, dict[str, Any]]] = {
    "pg2-22m": _DEBERTA
    | {
        "vocab_size": 128100,
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
    },
    "pg2-86m": _DEBERTA
    | {
        "vocab_size": 251000,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "lg3-1b": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "tie_word_embeddings": True,
    },
    "lg3-8b": _LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One engine at one shape: median and 99th percentile of a call."""

    model: str
    rows: int
    tokens: int
    p50_ms: float
    p99_ms: float

    @property
    def rows_per_s(self) -> float:
        """Windows judged in a second, one call after another."""
        return self.rows / self.p50_ms * 1000


def why_not() -> str:
    """Why nothing can be measured here; empty where it can."""
    try:
        import torch
        import transformers  # noqa: F401 - only its presence matters
    except ImportError as error:
        return f"{error.name} is not installed"
    if not torch.cuda.is_available():
        return "there is no GPU here"
    try:
        compiler.library(None)
    except Misconfigured as error:
        return error.message
    return ""


def measure(name: str, folder: Path) -> Iterator[Timing]:
    """Build, compare and time one model; raises AssertionError when parity fails."""
    import torch

    torch.manual_seed(0)
    from pipeline.guards.export import trace

    graph, model = _model(name)
    path = folder / f"{name}.onnx"
    trace(graph, model, path)
    lengths = LENGTHS.get(name, CHAT_LENGTHS)
    began_s = time.monotonic()
    trt, _ = compiler.library(None)
    profiles = list(compiler.profiles_of(lengths, max(ROWS)))
    engine = _Engine(trt, compiler.build_engine(trt, path, profiles, check=_take))
    print(f"{name}: compiled in {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    vocabulary = int(MODELS[name]["vocab_size"])
    for place, tokens in enumerate(lengths):
        for rows in ROWS:
            ids = torch.randint(5, vocabulary, (rows, tokens), device="cuda")
            mask = torch.ones_like(ids)
            mask[-1, tokens - tokens // 4 :] = 0
            if rows <= 8:
                _compare(name, engine, graph, (ids, mask), place)
            yield _timed(name, engine, ids, mask, place)


def _take(_: Any) -> None:
    """There is no card to disagree with."""


def _model(name: str) -> tuple[Any, Any]:
    import torch
    import transformers

    from pipeline.guards.prefill import Answers, Classifier, SinglePrefill

    sizes = MODELS[name]
    torch.set_default_device("cuda")
    try:
        if name.startswith("pg2"):
            config = transformers.DebertaV2Config(**sizes)
            model = transformers.DebertaV2ForSequenceClassification(config).eval().half()
            return Classifier(model).eval(), model
        torch.set_default_dtype(torch.bfloat16)
        config = transformers.LlamaConfig(**sizes, attn_implementation="eager")
        model = transformers.LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_device("cpu")
        torch.set_default_dtype(torch.float32)
    found = Answers(safe=19193, unsafe=39257, categories=tuple(range(16, 30)), behind=3)
    return SinglePrefill(model, found, every=True).eval(), model


class _Engine:
    """A plan ready to run on tensors that PyTorch holds on the GPU."""

    def __init__(self, trt: Any, plan: bytes) -> None:
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise AssertionError("TensorRT could not load its own plan on this GPU")
        self._contexts: dict[int, Any] = {}

    def run(self, ids: Any, mask: Any, profile: int) -> Any:
        """Logits on the GPU, complete when the call returns."""
        import torch

        stream = torch.cuda.current_stream()
        context = self._context(profile, stream.cuda_stream)
        columns = self._engine.get_tensor_shape("logits")[1]
        logits = torch.empty((ids.shape[0], columns), dtype=torch.float32, device="cuda")
        for name, tensor in (("input_ids", ids), ("attention_mask", mask)):
            context.set_input_shape(name, tuple(tensor.shape))
            context.set_tensor_address(name, tensor.data_ptr())
        context.set_tensor_address("logits", logits.data_ptr())
        if not context.execute_async_v3(stream.cuda_stream):
            raise AssertionError("TensorRT did not run the engine")
        stream.synchronize()
        return logits

    def _context(self, profile: int, stream: int) -> Any:
        if profile not in self._contexts:
            context = self._engine.create_execution_context()
            context.set_optimization_profile_async(profile, stream)
            self._contexts[profile] = context
        return self._contexts[profile]


def _compare(name: str, engine: _Engine, graph: Any, inputs: tuple[Any, Any], place: int) -> None:
    import torch

    with torch.inference_mode():
        expected = graph(*inputs)
    apart = (engine.run(*inputs, place) - expected).abs().max().item()
    print(f"{name} {tuple(inputs[0].shape)}: logits at most {apart:.4f} apart", file=sys.stderr)
    # Not `>`: what is not a number must not pass.
    if not apart <= HALF_BOUND:
        raise AssertionError(f"{name}: engine and PyTorch differ by {apart:.4f}")


def _timed(name: str, engine: _Engine, ids: Any, mask: Any, place: int) -> Timing:
    for _ in range(WARM_UP):
        engine.run(ids, mask, place)
    taken = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        engine.run(ids, mask, place)
        taken.append((time.perf_counter() - began_s) * 1000)
    return Timing(
        model=name,
        rows=ids.shape[0],
        tokens=ids.shape[1],
        p50_ms=statistics.median(taken),
        # Of so few calls the default method would give a time that no call took.
        p99_ms=statistics.quantiles(taken, n=100, method="inclusive")[-1],
    )


def table(timings: Sequence[Timing], device: str) -> str:
    """A Markdown table of the timings."""
    lines = [
        f"Measured on {device}, random weights, one call at a time.",
        "",
        "| model | rows | tokens | p50 ms | p99 ms | windows/s |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {t.model} | {t.rows} | {t.tokens} | {t.p50_ms:.2f} | {t.p99_ms:.2f}"
        f" | {t.rows_per_s:,.0f} |"
        for t in timings
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure the chosen models and print the table; 3 where nothing can be measured."""
    parser = argparse.ArgumentParser(description="Full-size guard engines on the GPU at hand")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--out", type=Path, help="Write the table here as well.")
    chosen = parser.parse_args()
    if reason := why_not():
        print(
            f"error: {reason}. Run this on a GPU machine with the extra `guards`", file=sys.stderr
        )
        return 3
    import torch

    timings: list[Timing] = []
    with TemporaryDirectory(prefix="sluice-engines-") as scratch:
        for name in chosen.models:
            timings += measure(name, Path(scratch))
            torch.cuda.empty_cache()
    text = table(timings, torch.cuda.get_device_name(0))
    print(text)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
