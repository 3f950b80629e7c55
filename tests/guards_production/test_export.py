"""Exported guards say what their checkpoints say; what cannot be exported is explained."""

from __future__ import annotations

import json
import re
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
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
