"""Give each token a scale of its own in front of chosen linear layers.

What goes into the down projections has outliers: fixed int8 ranges wide enough for them
leave nothing for the rest, so those layers stayed in fp32 and cost half of the time. Divided
by its own largest value a token lies in -1..1, which fixed ranges serve well; the product
is multiplied back. A token's scale depends on that token alone, so that a score still does
not depend on its neighbours in a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

_LEAST: Final = np.float32(1e-6)  # a token of zeroes must not divide by zero
_LEAST_NAME: Final = "token_scale.least"


def scale_by_token(source: Path, target: Path, part: str) -> int:
    """Write `source` with every MatMul whose name holds `part` scaled by token.

    The graph computes what it computed; returns how many layers were scaled.
    """
    model = onnx.load(source)
    graph = model.graph
    chosen = [n for n in graph.node if n.op_type == "MatMul" and part in n.name]
    graph.initializer.append(numpy_helper.from_array(np.array(_LEAST), _LEAST_NAME))
    for node in chosen:
        _scale(graph, node)
    onnx.checker.check_model(model)
    onnx.save(model, target)
    return len(chosen)


def _scale(graph: Any, node: Any) -> None:
    """Divide the layer's input by each token's largest value, and multiply its output."""
    given, made, own = node.input[0], node.output[0], f"{node.name}/token"
    before = [
        helper.make_node("Abs", [given], [f"{own}.abs"]),
        helper.make_node("ReduceMax", [f"{own}.abs"], [f"{own}.max"], axes=[-1], keepdims=1),
        helper.make_node("Max", [f"{own}.max", _LEAST_NAME], [f"{own}.scale"]),
        helper.make_node("Div", [given, f"{own}.scale"], [f"{own}.scaled"]),
    ]
    place = list(graph.node).index(node)
    node.input[0], node.output[0] = f"{own}.scaled", f"{own}.product"
    after = helper.make_node("Mul", [f"{own}.product", f"{own}.scale"], [made])
    graph.node.insert(place + 1, after)
    for offset, each in enumerate(before):
        graph.node.insert(place + offset, each)
