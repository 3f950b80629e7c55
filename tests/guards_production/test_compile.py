"""The compile path for real, with TensorRT's RTX flavour: no GPU is needed to build."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Misconfigured
from pipeline.guards import cards
from pipeline.guards import compile as compiler
from pipeline.guards.compile import Wanted

from .conftest import Made, export

pytestmark = pytest.mark.guards

EVERY = ["llama_guard_3", "llama_guard_4", "prompt_guard", "own_guard"]


@pytest.fixture(autouse=True)
def _builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A builder, and no container's release in the environment."""
    pytest.importorskip("tensorrt_rtx")
    for name in compiler._RELEASES:
        monkeypatch.delenv(name, raising=False)


def copied(made: Made, tmp_path: Path) -> Path:
    """The guard's folder, free to be spoilt."""
    return Path(shutil.copytree(made.folder, tmp_path / made.folder.name))


@pytest.mark.parametrize("name", EVERY)
def test_a_plan_is_built_with_a_profile_per_bucket(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Llama 3, Llama 4, DeBERTa and BERT compile; build.json tells what was made of what."""
    made: Made = request.getfixturevalue(name)
    folder = copied(made, tmp_path)
    card = cards.load(folder)
    build = compiler.compile_plan(Wanted(folder=folder, flavour="tensorrt-rtx"))
    written = json.loads((folder / "1" / "build.json").read_text())
    assert written["engine_sha256"] == cards.sha256_of(folder / "1" / build.plan)
    assert written["onnx_sha256"] == card.model_digest
    assert (written["precision"], written["flavour"]) == ("fp32", "tensorrt-rtx")
    assert written["trt_version"]
    longest = [profile["tokens"][2] for profile in written["profiles"]]
    assert longest == list(card.buckets)
    assert [p["tokens"][0] for p in written["profiles"]] == [1, *(n + 1 for n in longest[:-1])]
    found = compiler.read_build(folder)
    assert found is not None
    assert compiler.stale(folder, card, found) == ""


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_graphs_compile(llama_guard_3: Made, tmp_path: Path, precision: str) -> None:
    """The graph's own precision is the plan's."""
    made = export(
        llama_guard_3.checkpoint, "half", llama_guard_3.recipe, tmp_path, precision=precision
    )
    build = compiler.compile_plan(Wanted(folder=made.folder, precision=precision))
    assert build.precision == precision


def test_a_plan_that_no_longer_fits_is_told_apart(prompt_guard: Made, tmp_path: Path) -> None:
    """Another graph, a changed plan, a lost plan: each is said."""
    folder = copied(prompt_guard, tmp_path)
    card = cards.load(folder)
    build = compiler.compile_plan(Wanted(folder=folder, flavour="tensorrt-rtx"))
    other = replace(card, model_digest="sha256:" + "0" * 64)
    assert compiler.stale(folder, other, build) == "built from another graph"
    (folder / "1" / build.plan).write_bytes(b"changed")
    assert "was changed" in compiler.stale(folder, card, build)
    (folder / "1" / build.plan).unlink()
    assert "is gone" in compiler.stale(folder, card, build)


def graph(tmp_path: Path, **differs: Any) -> Path:
    """A small graph with the contract's tensors, except for what `differs` says."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    of = {
        "ids": "input_ids", "mask": "attention_mask", "out": "logits", "type": TensorProto.INT64,
        "shape": ["rows", "tokens"], "classes": 2, "out_type": TensorProto.FLOAT,
    } | differs  # fmt: skip
    reduced = len(of["shape"]) == 2
    weights = np.ones((1, of["classes"]), np.float32)
    nodes = [
        helper.make_node("Add", [of["ids"], of["mask"]], ["sum"]),
        helper.make_node("Cast", ["sum"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1] if reduced else [1, 2]),
        helper.make_node("Reshape", ["mean", "column"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["wide"]),
        helper.make_node("Cast", ["wide"], [of["out"]], to=of["out_type"]),
    ]
    inputs = [
        helper.make_tensor_value_info(of[name], of["type"], of["shape"]) for name in ("ids", "mask")
    ]
    output = helper.make_tensor_value_info(of["out"], of["out_type"], ["rows", of["classes"]])
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([-1, 1], np.int64), "column"),
    ]
    made = helper.make_graph(nodes, "small", inputs, [output], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "small.onnx"
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"ids": "tokens"}, "inputs is ['attention_mask', 'tokens']"),
        ({"out": "scores"}, "outputs is ['scores'], it must be ['logits']"),
        ({"shape": ["rows", "tokens", "more"]}, "the shape of input_ids"),
        ({"shape": ["rows", 16]}, "the shape of input_ids is (-1, 16)"),
        ({"type": 1}, "the type of input_ids"),
        ({"out_type": 10}, "the type of logits"),
        ({"classes": 5}, "it must be [rows, 2], for the card's 2 classes"),
    ],
)
def test_a_graph_that_disagrees_with_the_card_is_refused(
    prompt_guard: Made, tmp_path: Path, differs: dict[str, Any], says: str
) -> None:
    """Names, ranks, types and the number of classes, each in so many words."""
    folder = copied(prompt_guard, tmp_path)
    _replace_graph(folder, graph(tmp_path, **differs))
    with pytest.raises(Misconfigured) as caught:
        compiler.compile_plan(Wanted(folder=folder, flavour="tensorrt-rtx"))
    assert says in caught.value.message
    assert "export the guard again" in caught.value.remedy.lower()
    assert not (folder / "1" / "build.json").exists()


def test_the_small_graph_itself_is_accepted(prompt_guard: Made, tmp_path: Path) -> None:
    """What the refusals change is all that was wrong with it."""
    folder = copied(prompt_guard, tmp_path)
    _replace_graph(folder, graph(tmp_path))
    assert compiler.compile_plan(Wanted(folder=folder, flavour="tensorrt-rtx")).plan


@pytest.mark.parametrize(
    ("wanted", "says", "remedy"),
    [
        ({"precision": "fp16"}, "is in fp32", "Export the guard again with --precision fp16"),
        ({"precision": "fp8"}, "modelopt is not installed", "nvidia-modelopt"),
        ({"precision": "int4"}, "cannot make it int4", "fp8 or int8"),
        ({"serves_with": "26.07"}, "whose release is unknown", "container of release 26.07"),
        ({"flavour": "cuda"}, "no flavour 'cuda'", "tensorrt-rtx"),
        ({"flavour": "tensorrt"}, "tensorrt is not installed", "container"),
    ],
)
def test_what_cannot_be_built_here_is_explained(
    prompt_guard: Made, tmp_path: Path, wanted: dict[str, Any], says: str, remedy: str
) -> None:
    """Each refusal says what to do instead."""
    folder = copied(prompt_guard, tmp_path)
    with pytest.raises(Misconfigured) as caught:
        compiler.compile_plan(Wanted(folder=folder, **wanted))
    assert says in caught.value.message
    assert remedy in caught.value.remedy


def test_another_release_than_the_one_that_serves_is_refused(
    prompt_guard: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan loads only in the TensorRT that built it; the right release is recorded."""
    folder = copied(prompt_guard, tmp_path)
    monkeypatch.setenv("NVIDIA_TENSORRT_VERSION", "26.05")
    with pytest.raises(Misconfigured, match=r"26\.07 cannot be built in release 26\.05"):
        compiler.compile_plan(Wanted(folder=folder, serves_with="26.07"))
    build = compiler.compile_plan(
        Wanted(folder=folder, flavour="tensorrt-rtx", serves_with="26.05")
    )
    assert build.release == "26.05"


def test_a_gpu_profile_that_names_too_few_profiles_is_refused(
    prompt_guard: Made, tmp_path: Path
) -> None:
    """Triton would silently leave the longest texts without a profile."""
    folder = copied(prompt_guard, tmp_path)
    path = folder / "configs" / "tensorrt.pbtxt"
    path.write_text(path.read_text().replace('"0", "1", "2"', '"0", "1"'))
    with pytest.raises(Misconfigured, match="names 2 optimisation profiles"):
        compiler.compile_plan(Wanted(folder=folder, flavour="tensorrt-rtx"))


def test_a_plan_for_fewer_rows_than_its_profile_lets_in_is_refused(
    prompt_guard: Made, tmp_path: Path
) -> None:
    """Triton would not load it; with the profile lowered it is built."""
    folder = copied(prompt_guard, tmp_path)
    wanted = Wanted(folder=folder, flavour="tensorrt-rtx", max_rows=8)
    with pytest.raises(Misconfigured, match="lets 64 rows into one call") as caught:
        compiler.compile_plan(wanted)
    assert "max_batch_size to 8" in caught.value.remedy
    assert not (folder / "1" / "build.json").exists()
    path = folder / "configs" / "tensorrt.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 64", "max_batch_size: 8"))
    assert compiler.compile_plan(wanted).profiles[0]["rows"] == (1, 8, 8)


def test_weights_that_are_not_the_graph_s_are_not_compiled(
    prompt_guard: Made, tmp_path: Path
) -> None:
    """The graph's digest alone would let other weights pass."""
    made = export(
        prompt_guard.checkpoint, "large", prompt_guard.recipe, tmp_path, one_file_bytes=1000
    )
    wanted = Wanted(folder=made.folder, flavour="tensorrt-rtx")
    data = made.folder / "1" / "model.onnx.data"
    kept = data.read_bytes()
    data.write_bytes(kept[:-1] + b"?")
    with pytest.raises(Misconfigured, match="does not hold the weights"):
        compiler.compile_plan(wanted)
    data.write_bytes(kept)
    assert compiler.compile_plan(wanted).plan


def _replace_graph(folder: Path, path: Path) -> None:
    """Put a graph in place of the guard's, its digest in the card."""
    card, graph_path = folder / "card.toml", folder / "1" / "model.onnx"
    before = cards.sha256_of(graph_path)
    shutil.copyfile(path, graph_path)
    card.write_text(card.read_text().replace(before, cards.sha256_of(graph_path)))
