"""Specification of scaling by token: the same answers, inputs within -1..1, no neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from pipeline.guards.token_scale import scale_by_token  # noqa: E402

pytestmark = pytest.mark.guards


def linear(path: Path) -> Path:
    """Two layers of 4 to 4 and 4 to 2: `/up/MatMul` and `/down/MatMul`."""
    chance = np.random.default_rng(1)
    weights = {"up": chance.normal(size=(4, 4)), "down": chance.normal(size=(4, 2))}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "up"], ["h"], name="/up/MatMul"),
            helper.make_node("MatMul", ["h", "down"], ["y"], name="/down/MatMul"),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, 2])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def run(path: Path, given: Any, output: str = "y") -> Any:
    """One output of a graph."""
    model = onnx.load(path)
    if output != "y":
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([output], {"x": given})[0]


@pytest.fixture
def tokens() -> Any:
    """Three texts of five tokens with an outlier, and a token of zeroes."""
    given = np.random.default_rng(2).normal(size=(3, 5, 4)).astype(np.float32)
    given[0, 0] *= 1000
    given[1, 2] = 0
    return given


def test_the_graph_answers_as_before(tmp_path: Path, tokens: Any) -> None:
    """Only the chosen layer is scaled, and its product is scaled back."""
    plain, scaled = linear(tmp_path / "plain.onnx"), tmp_path / "scaled.onnx"
    assert scale_by_token(plain, scaled, "/down/") == 1
    assert run(scaled, tokens) == pytest.approx(run(plain, tokens), rel=1e-4, abs=1e-5)
    assert np.isfinite(run(scaled, tokens)).all()


def test_the_layer_sees_each_token_within_one(tmp_path: Path, tokens: Any) -> None:
    """An outlier fills its own range and nobody else's."""
    scaled = tmp_path / "scaled.onnx"
    scale_by_token(linear(tmp_path / "plain.onnx"), scaled, "/down/")
    seen = np.abs(run(scaled, tokens, "/down/MatMul/token.scaled")).max(axis=-1)
    expected = np.ones((3, 5))
    expected[1, 2] = 0
    assert seen == pytest.approx(expected)


def test_a_token_is_scaled_alike_whatever_is_beside_it(tmp_path: Path, tokens: Any) -> None:
    """Alone and in a batch, bit for bit."""
    scaled = tmp_path / "scaled.onnx"
    scale_by_token(linear(tmp_path / "plain.onnx"), scaled, "/down/")
    name = "/down/MatMul/token.scale"
    assert (run(scaled, tokens, name)[2] == run(scaled, tokens[2:], name)[0]).all()
