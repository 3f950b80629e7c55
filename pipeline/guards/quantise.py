"""The trained network as a small ONNX graph.

Five forms are made and compared; `measure` decides which one ships. In all of
them the word table is int8 with one scale per word: it is two thirds of the
weights and only ever gathered from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from pipeline.guards.encoder import GuardEncoder
from pipeline.guards.token_scale import scale_by_token

OPSET = 17
WORDS = "words.weight"
# The Triton model (`triton_models/default/1/model.py`) says why; it can import nothing of ours.
SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")
Feed = dict[str, NDArray[np.int64]]
LINEAR: dict[str, Any] = {
    "op_types_to_quantize": ["MatMul"],
    "per_channel": True,
    "extra_options": {"MatMulConstBOnly": True},
}
INPUTS_ONLY = LINEAR["extra_options"] | {"OpTypesToExcludeOutputQuantization": ["MatMul"]}


def export(model: GuardEncoder, path: Path) -> None:
    """Write the fp32 graph: two int64 inputs [rows, tokens], `logits` out."""
    shape = torch.ones(2, 16, dtype=torch.long)
    free = {0: "rows", 1: "tokens"}
    with warnings.catch_warnings():
        # The tracing exporter is deprecated, but its graph is the plainer one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (shape, shape),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )


def forms(plain: Path, folder: Path, samples: Sequence[Feed]) -> dict[str, Path]:
    """Write every form of the fp32 graph `plain`; returns name to path.

    weights8: int8 storage, fp32 arithmetic. dynamic8: activation ranges taken
    from each batch. static8: ranges fixed from `samples`. mixed8: static8
    but for the down projections, whose inputs have outliers. token8: static8
    with those inputs scaled token by token.
    """
    names = ("weights8", "dynamic8", "static8", "mixed8", "token8")
    made = {name: folder / f"{name}.onnx" for name in names}
    _pack(plain, made["weights8"])
    quantize_dynamic(plain, made["dynamic8"], weight_type=QuantType.QInt8, **LINEAR)
    nodes = [node.name for node in onnx.load(plain).graph.node if node.op_type == "MatMul"]
    _static(plain, made["static8"], samples, [])
    _static(plain, made["mixed8"], samples, [name for name in nodes if "/down/" in name])
    scaled = folder / "scaled.onnx"
    scale_by_token(plain, scaled, "/down/")
    _static(scaled, made["token8"], samples, [])
    for name in ("dynamic8", "static8", "mixed8", "token8"):
        _pack(made[name], made[name])
    return made


def _static(source: Path, target: Path, samples: Sequence[Feed], kept: Sequence[str]) -> None:
    """Quantise with fixed ranges; `kept` MatMul nodes stay in fp32.

    What goes into a product is quantised, what comes out is not: it is added to a bias
    next, and to quantise it first costs a tenth of the time and some accuracy.
    """
    quantize_static(
        source,
        target,
        _Samples(samples),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=list(kept),
        # 7-bit weights: processors without VNNI would saturate on 8 bits and
        # give other scores than the card's.
        reduce_range=True,
        **LINEAR | {"extra_options": INPUTS_ONLY},
    )


def _pack(source: Path, target: Path) -> None:
    """Store the word table and the MatMul weights still in fp32 as int8."""
    graph = onnx.load(source)
    weights = {item.name: item for item in graph.graph.initializer}
    if WORDS in weights:
        _pack_words(graph.graph, weights[WORDS])
    for node in [node for node in graph.graph.node if node.op_type == "MatMul"]:
        if node.input[1] in weights:
            _pack_linear(graph.graph, weights[node.input[1]])
    _sort(graph.graph)
    onnx.checker.check_model(graph)
    onnx.save(graph, target)


def _pack_words(graph: Any, table: Any) -> None:
    """Gather int8 rows and their scales instead of fp32 rows."""
    rows, scale = _int8(numpy_helper.to_array(table), axis=1)
    graph.initializer.remove(table)
    graph.initializer.append(numpy_helper.from_array(rows, "words.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, "words.scale"))
    gather = next(node for node in graph.node if node.op_type == "Gather" and WORDS in node.input)
    ids, output = gather.input[1], gather.output[0]
    graph.node.remove(gather)
    graph.node.extend(
        [
            helper.make_node("Gather", ["words.int8", ids], ["words.rows"]),
            helper.make_node("Gather", ["words.scale", ids], ["words.row_scale"]),
            helper.make_node("Cast", ["words.rows"], ["words.rows32"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["words.rows32", "words.row_scale"], [output]),
        ]
    )


def _pack_linear(graph: Any, weight: Any) -> None:
    """Store one weight [in, out] as int8; folded to fp32 when loaded."""
    small, scale = _int8(numpy_helper.to_array(weight), axis=0)
    name = weight.name
    graph.initializer.remove(weight)
    graph.initializer.append(numpy_helper.from_array(small, f"{name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    graph.node.extend(
        [
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.cast"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.cast", f"{name}.scale"], [name]),
        ]
    )


def _int8(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale along `axis`, kept as a dimension."""
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / 127.0, 1e-12)
    small = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
    return small, scale.astype(np.float32)


def _sort(graph: Any) -> None:
    """Put nodes after the nodes that feed them, as ONNX requires."""
    ready = {item.name for item in (*graph.initializer, *graph.input)} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        free = [node for node in waiting if all(name in ready for name in node.input)]
        if not free:
            raise ValueError("the graph has a cycle or a missing tensor")
        ordered += free
        ready |= {name for node in free for name in node.output}
        done = {id(node) for node in free}
        waiting = [node for node in waiting if id(node) not in done]
    del graph.node[:]
    graph.node.extend(ordered)


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    """Feeds for the static form's activation ranges."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        """Wrap the feeds, each one batch."""
        self.feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed, None at the end."""
        return next(self.feeds, None)


def session(path: Path, threads: int) -> Any:
    """Open a graph as the Triton model does: no spinning, no slow fusions, given threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(SLOW_FUSIONS),
    )
