"""Exported guards say what their checkpoints say; what cannot be exported is explained."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Misconfigured
from pipeline.guards import cards, llama_guard, recipes, verify
from tests.support import checkpoints

from .conftest import Made, export

pytestmark = pytest.mark.guards

EVERY = ["llama_guard_3", "llama_guard_4", "prompt_guard", "own_guard"]


@pytest.mark.parametrize("name", EVERY)
def test_a_graph_equals_its_checkpoint(name: str, request: pytest.FixtureRequest) -> None:
    """Golden texts, and long and short texts in several languages: the same scores."""
    from pipeline.guards import parity

    made: Made = request.getfixturevalue(name)
    card, run = cards.load(made.folder), verify.onnx_run(made.folder)
    reference = parity.reference(card, str(made.checkpoint), "fp32")
    verify.require(verify.golden(card, run), 1e-3, "golden")
    verify.require(verify.parity(card, run, reference), 1e-4, "parity")


@pytest.mark.parametrize("name", EVERY)
def test_a_folder_is_whole(name: str, request: pytest.FixtureRequest) -> None:
    """Card, both profiles and the code carry one digest and as many classes."""
    made: Made = request.getfixturevalue(name)
    card = cards.load(made.folder)
    for profile in ("config.pbtxt", "configs/tensorrt.pbtxt"):
        text = (made.folder / profile).read_text()
        assert re.findall(r"sha256:[0-9a-f]{64}", text) == [card.model_digest]
        assert f"TYPE_FP32 dims: [ {len(card.classes)} ]" in text
    assert (made.folder / "1" / "model.py").is_file()
    assert len({golden.text for golden in card.golden}) >= 3


def test_prompt_guard_s_second_class_is_jailbreak(prompt_guard: Made) -> None:
    """Index 1 is the malicious class; completions are none of its business."""
    card = cards.load(prompt_guard.folder)
    scores = card.scores(np.array([[0.0, 3.0], [3.0, 0.0]], dtype=np.float32))
    assert scores[:, 0] == pytest.approx([0.95257, 0.04743], abs=1e-5)
    assert (card.labels, {role.value for role in card.roles}) == (("jailbreak",), {"prompt"})


def test_a_guard_without_some_categories_neither_asks_nor_scores_them(
    llama_guard_3: Made, tmp_path: Path
) -> None:
    """Excluding is a matter of card and template: the graph is the same."""
    recipe = llama_guard_3.recipe.without(["S5", "S13"])
    made = export(llama_guard_3.checkpoint, "fewer", recipe, tmp_path)
    card = cards.load(made.folder)
    assert not {"S5", "S13"} & set(card.labels)
    assert card.template is not None
    assert "S5:" not in card.template.prompt
    assert card.model_digest == cards.load(llama_guard_3.folder).model_digest
    verify.require(verify.golden(card, verify.onnx_run(made.folder)), 1e-3, "golden")


def test_without_health_the_vocabulary_stays_out_of_the_graph(
    llama_guard_3: Made, tmp_path: Path
) -> None:
    """Only the rows of the possible answers are multiplied, and the graph is smaller."""
    made = export(llama_guard_3.checkpoint, "small", llama_guard_3.recipe, tmp_path, health=False)
    card = cards.load(made.folder)
    assert "*" not in card.classes
    assert card.health(np.zeros((1, len(card.classes)), np.float32)) is None
    verify.require(verify.golden(card, verify.onnx_run(made.folder)), 1e-3, "golden")
    whole = (llama_guard_3.folder / "1" / "model.onnx").stat().st_size
    assert (made.folder / "1" / "model.onnx").stat().st_size < whole


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_in_the_graph_and_logits_stay_fp32(
    llama_guard_3: Made, tmp_path: Path, precision: str
) -> None:
    """TensorRT takes precision from the graph, so the graph must hold it."""
    import onnx

    from pipeline.guards import precision as precisions

    made = export(
        llama_guard_3.checkpoint, "half", llama_guard_3.recipe, tmp_path, precision=precision
    )
    path = made.folder / "1" / "model.onnx"
    assert precisions.of(path) == precision
    (output,) = onnx.load(str(path)).graph.output
    assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_graph_that_no_cpu_runs_is_to_be_verified_where_it_is_served(
    llama_guard_3: Made, tmp_path: Path
) -> None:
    """ONNX Runtime lacks bf16; what it says is no remedy."""
    from pipeline.guards import parity

    made = export(
        llama_guard_3.checkpoint, "bf16", llama_guard_3.recipe, tmp_path, precision="bf16"
    )
    with pytest.raises(Misconfigured, match="on a CPU") as caught:
        verify.onnx_run(made.folder)
    assert "--served" in caught.value.remedy
    half, full = cards.load(made.folder), cards.load(llama_guard_3.folder)
    assert parity.tolerance(half, "fp32") == parity.tolerance(full, "bf16") == 0.06
    assert parity.tolerance(full, "fp32") == 0.02


def test_large_weights_lie_beside_the_graph_under_its_digest(
    prompt_guard: Made, tmp_path: Path
) -> None:
    """A protobuf ends at 2 GiB; the graph then names the digest of its data."""
    import onnx

    made = export(
        prompt_guard.checkpoint, "large", prompt_guard.recipe, tmp_path, one_file_bytes=1000
    )
    path = made.folder / "1" / "model.onnx"
    graph = onnx.load(str(path), load_external_data=False)
    named = {each.key: each.value for each in graph.metadata_props}
    assert named["data_sha256"] == cards.sha256_of(path.with_name("model.onnx.data"))
    verify.require(
        verify.golden(cards.load(made.folder), verify.onnx_run(made.folder)), 1e-3, "golden"
    )
    data = path.with_name("model.onnx.data")
    kept = data.read_bytes()
    for spoil in (lambda: data.write_bytes(kept[:-1] + b"?"), data.unlink):
        spoil()
        with pytest.raises(Misconfigured, match="does not hold the weights that its graph names"):
            verify.onnx_run(made.folder)


def test_an_operating_point_is_written_for_every_label_that_decides(
    own_guard: Made, llama_guard_3: Made
) -> None:
    """A classifier's labels each decide; a Llama Guard's categories share one verdict."""
    points = cards.load(own_guard.folder).operating_points
    assert points == {"balanced": {"S10": 0.5, "injection": 0.5}}
    assert cards.load(llama_guard_3.folder).operating_points == {"balanced": {"unsafe": 0.5}}


def _template(text: str) -> str:
    """Hugging Face's way to write a published text: turns joined inside it."""
    turns = (
        "{% for m in messages %}{{ ('User' if m['role'] == 'user' else 'Agent') + ': '"
        " + m['content'] | trim + '\\n\\n' }}{% endfor %}"
    )
    head, _, tail = text.partition("User: soup\n\n")
    role = "{{ 'User' if messages | length % 2 else 'Agent' }}"
    head, tail = (part.replace("'User'", f"'{role}'") for part in (head, tail))
    return head + turns + tail.replace("LAST User", f"LAST {role}")


def test_the_checkpoint_s_own_template_is_read_by_its_rendering(tmp_path: Path) -> None:
    """Where it agrees with the pinned text nothing is said; where not, it wins and says so."""
    from pipeline.guards import checkpoint

    version = llama_guard.LLAMA_GUARD_3_8B
    text = llama_guard.render(version, [("user", "soup")])
    recipe = recipes.named(version.name)
    for name, published, remark in (
        ("same", text, ""),
        ("other", text.replace("according our", "according to our"), "differs from the pinned"),
    ):
        folder = checkpoints.llama(tmp_path / name, chat_template=_template(published))
        found = checkpoint.open_checkpoint(str(folder), recipe)
        template, said = checkpoint.chat_template(found, recipe)
        assert remark in said
        assert bool(said) == bool(remark)
        assert template.render("soup", None, completion=False) == published + llama_guard.ANSWER


def test_a_header_that_is_only_given_when_asked_for_is_asked_for(tmp_path: Path) -> None:
    """The model answers after the assistant's header, whatever a template makes of the wish."""
    from pipeline.guards import checkpoint

    version = llama_guard.LLAMA_GUARD_3_8B
    header = "<|start_header_id|>assistant<|end_header_id|>"
    wished = "{% if add_generation_prompt %}" + header + "{% endif %}"
    text = _template(llama_guard.render(version, [("user", "soup")]))
    folder = checkpoints.llama(tmp_path / "lg3", chat_template=text.replace(header, wished))
    recipe = recipes.named(version.name)
    found = checkpoint.open_checkpoint(str(folder), recipe)
    assert checkpoint.chat_template(found, recipe) == (llama_guard.template(version), "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_position_embeddings": 64}, "windows of 128 tokens exceed the model's input of 64"),
        ({"architectures": ["GPT2LMHeadModel"]}, "not a prompt-guard-2 guard"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "has 3 classes, the card would name 2"),
    ],
)
def test_another_kind_of_checkpoint_is_refused(
    prompt_guard: Made, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    """What the card would say must be what the checkpoint is."""
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in prompt_guard.checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Misconfigured, match=says):
        export(folder, "changed", prompt_guard.recipe, tmp_path / "models")
    assert not list((tmp_path / "models").glob("*"))


@pytest.mark.parametrize(
    ("config", "positions", "chunk"),
    [
        ({"model_type": "bert", "max_position_embeddings": 128}, 128, None),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512, None),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": None}, 512, None),
        ({"model_type": "xlnet", "max_position_embeddings": -1}, None, None),
        ({"model_type": "llama", "max_position_embeddings": 131072}, 131072, None),
        ({"text_config": {"model_type": "llama4_text", "attention_chunk_size": None}}, None, 8192),
        (
            {"model_type": "llama4_text", "max_position_embeddings": 2048,
             "attention_chunk_size": None},
            2048, 2048,
        ),
        ({"model_type": "llama4_text", "attention_chunk_size": 512}, None, 512),
    ],
)  # fmt: skip
def test_a_configuration_tells_the_longest_window(
    prompt_guard: Made, config: dict[str, Any], positions: int | None, chunk: int | None
) -> None:
    """Positions that begin after the padding's id are fewer; a Llama 4 always has chunks."""
    from pipeline.guards import checkpoint

    found = checkpoint.open_checkpoint(str(prompt_guard.checkpoint), prompt_guard.recipe)
    found = replace(found, config=config)
    assert (found.positions, found.chunk) == (positions, chunk)


def test_a_window_longer_than_the_positions_is_refused_before_any_work(
    own_guard: Made, tmp_path: Path
) -> None:
    """Else the first long text would fail, and no golden text is long."""
    recipe = recipes.classifier(["-", "S10", "injection"], "softmax", ["prompt"]).up_to(513)
    with pytest.raises(Misconfigured, match="the model's input of 512") as caught:
        export(own_guard.checkpoint, "long", recipe, tmp_path)
    assert "--max-length 512" in caught.value.remedy


def test_padding_in_a_tokenizer_s_file_is_no_border(own_guard: Made, tmp_path: Path) -> None:
    """Some are saved with the padding and the length of their training."""
    from tokenizers import Tokenizer

    from pipeline.guards import checkpoint

    found = checkpoint.open_checkpoint(str(own_guard.checkpoint), own_guard.recipe)
    padded = Tokenizer.from_file(str(found.folder / "tokenizer.json"))
    padded.enable_padding(length=128)
    padded.enable_truncation(max_length=128)
    padded.save(str(tmp_path / "tokenizer.json"))
    assert checkpoint.borders(replace(found, folder=tmp_path)) == checkpoint.borders(found)


@pytest.mark.parametrize("name", ["", ".", "../outside", "meta/pg", 'a"b', ".hidden", "a\n"])
def test_a_name_that_is_no_folder_s_is_refused_before_any_work(
    own_guard: Made, tmp_path: Path, name: str
) -> None:
    """It would be lost when the folder is renamed, lie elsewhere, or spoil a profile."""
    with pytest.raises(Misconfigured, match="cannot name a guard"):
        export(own_guard.checkpoint, name, own_guard.recipe, tmp_path / "models")
    assert not list(tmp_path.iterdir())


def _changed(made: Made, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a checkpoint whose tensors are changed in place."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(made.checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("change", ["absent", "narrower"])
def test_a_checkpoint_without_some_weight_is_refused_by_its_name(
    own_guard: Made, tmp_path: Path, change: str
) -> None:
    """The library would fill it at random, and the card would hold what the noise says."""

    def spoil(tensors: dict[str, Any]) -> None:
        bias = tensors.pop("classifier.bias")
        if change == "narrower":
            tensors["classifier.bias"] = bias[:2].clone()

    folder = _changed(own_guard, tmp_path / "spoilt", spoil)
    with pytest.raises(Misconfigured, match=r"lacks classifier\.bias") as caught:
        export(folder, "spoilt", own_guard.recipe, tmp_path / "models")
    assert caught.value.remedy
    assert not list((tmp_path / "models").iterdir())


def test_a_head_tied_to_the_embeddings_is_not_missing(llama_guard_3: Made, tmp_path: Path) -> None:
    """It is saved once: Llama Guard 3 1B has no lm_head of its own."""
    from pipeline.guards import checkpoint

    folder = _changed(
        llama_guard_3, tmp_path / "tied", lambda tensors: tensors.pop("lm_head.weight")
    )
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    model = checkpoint.open_checkpoint(str(folder), llama_guard_3.recipe).model("fp32")
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_weights_that_are_absent_or_cut_off_are_told(
    own_guard: Made, tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    """An interrupted download leaves such a folder."""
    folder = Path(shutil.copytree(own_guard.checkpoint, tmp_path / "spoilt"))
    spoil(folder / "model.safetensors")
    with pytest.raises(Misconfigured, match=r"the weights in .* cannot be loaded") as caught:
        export(folder, "spoilt", own_guard.recipe, tmp_path / "models")
    assert "complete checkpoint" in caught.value.remedy


def test_a_configuration_that_is_no_object_is_refused(own_guard: Made, tmp_path: Path) -> None:
    """No traceback for a file that is JSON, but not a checkpoint's."""
    folder = Path(shutil.copytree(own_guard.checkpoint, tmp_path / "spoilt"))
    (folder / "config.json").write_text("[1]")
    with pytest.raises(Misconfigured, match="cannot be read"):
        export(folder, "spoilt", own_guard.recipe, tmp_path / "models")


def test_borders_that_cannot_be_framed_are_told_before_any_work(
    own_guard: Made, tmp_path: Path
) -> None:
    """Not once the graph is traced."""
    from tokenizers import Tokenizer

    from pipeline.guards import checkpoint

    folder = Path(shutil.copytree(own_guard.checkpoint, tmp_path / "bare"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bare = json.loads(tokenizer.to_str()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(bare))
    with pytest.raises(Misconfigured, match="puts 0 special tokens around a text"):
        checkpoint.open_checkpoint(str(folder), own_guard.recipe)


def test_a_guard_is_never_written_over(prompt_guard: Made) -> None:
    """An export that would replace a folder is refused before any work."""
    with pytest.raises(Misconfigured, match="exists"):
        export(prompt_guard.checkpoint, "pg2", prompt_guard.recipe, prompt_guard.folder.parent)


def test_a_tampered_guard_does_not_verify(prompt_guard: Made, tmp_path: Path) -> None:
    """A card whose scores the graph does not give is refused with the text's number."""
    card = cards.load(prompt_guard.folder)
    run = verify.onnx_run(prompt_guard.folder)
    wrong = verify.golden(card, lambda ids, mask: -run(ids, mask))
    with pytest.raises(Misconfigured, match="golden text 1 scores"):
        verify.require(wrong, 0.02, "golden")
