"""The precision of a graph, and the ways to another one.

TensorRT takes precision from the graph. fp32, fp16 and bf16 are chosen when a
guard is exported; fp8 and int8 are quantised graphs that NVIDIA's modelopt
writes from sample inputs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import Misconfigured

QUANTISED: Final = ("fp8", "int8")
_FLOATS: Final = {1: "fp32", 10: "fp16", 16: "bf16", 17: "fp8", 3: "int8"}
"""ONNX's numbers for the element types that weights come in."""


def prepared(onnx: Path, wanted: str | None, calibration: Path | None) -> tuple[Path, str]:
    """The graph to compile and its precision; raises Misconfigured with the way to get it."""
    found = of(onnx)
    if wanted in {None, found}:
        return onnx, found
    if wanted in QUANTISED:
        return _quantised(onnx, str(wanted), calibration), str(wanted)
    raise Misconfigured(
        f"{onnx} is in {found}; TensorRT takes precision from the graph and cannot make it"
        f" {wanted}",
        remedy=f"Export the guard again with --precision {wanted}"
        if wanted in _FLOATS.values()
        else "Use fp32, fp16, bf16, fp8 or int8",
    )


def of(path: Path) -> str:
    """The type of most of a graph's weights; raises Misconfigured if that cannot be told."""
    onnx = _library("onnx", "pip install onnx, or leave --precision out")
    graph: Any = onnx.load(str(path), load_external_data=False).graph
    sizes: dict[str, int] = {}
    for each in graph.initializer:
        if kind := _FLOATS.get(each.data_type):
            sizes[kind] = sizes.get(kind, 0) + int(np.prod(each.dims, dtype=np.int64))
    return max(sizes, key=lambda kind: sizes[kind]) if sizes else "fp32"


def _quantised(onnx: Path, wanted: str, calibration: Path | None) -> Path:
    quantization = _library(
        "modelopt.onnx.quantization",
        f"pip install 'nvidia-modelopt[onnx]' on the GPU machine for {wanted},"
        " or export in bf16 or fp16",
    )
    if calibration is None:
        raise Misconfigured(
            f"{wanted} needs sample inputs to find the range of each value",
            remedy="Give --calibration samples.npz with input_ids and attention_mask",
        )
    with np.load(calibration) as samples:
        feed = {name: samples[name] for name in ("input_ids", "attention_mask")}
    made = onnx.with_name(f"model.{wanted}.onnx")
    quantization.quantize(
        str(onnx), quantize_mode=wanted, calibration_data=feed, output_path=str(made)
    )
    return made


def _library(name: str, remedy: str) -> Any:
    try:
        if find_spec(name) is not None:
            return __import__(name, fromlist=["_"])
    except ImportError:
        pass
    raise Misconfigured(f"{name.partition('.')[0]} is not installed here", remedy=remedy)
