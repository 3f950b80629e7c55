"""`sluice guard`, as a person uses it: the README's worked example, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import guard
from pipeline.errors import Misconfigured
from pipeline.guards import cards, verify
from tests.support import checkpoints

from .conftest import Made, export

pytestmark = pytest.mark.guards


def sluice(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "guard", *arguments],
        capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Hugging Face text classifier, and the repository its guard was exported to."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("own")
    checkpoint, repository = checkpoints.bert(folder / "my-classifier"), folder / "models"
    done = sluice(
        "export", str(checkpoint), "--as", "classifier", "--classes=-,S10,injection",
        "--name", "mine", "--max-length", "128", "--repository", str(repository),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(repository / "mine")
    return checkpoint, repository


def test_the_worked_example_works(own: tuple[Path, Path]) -> None:
    """Export, verify against the checkpoint, compile, list: as the README adds a guard."""
    checkpoint, repository = own
    where = ("--repository", str(repository))
    verified = sluice("verify", "mine", "--checkpoint", str(checkpoint), *where)
    assert verified.returncode == 0, verified.stderr
    assert "texts agree" in verified.stderr
    compiled = sluice("compile", "mine", "--flavour", "tensorrt-rtx", *where)
    assert compiled.returncode == 0, compiled.stderr
    assert "Triton cannot load this flavour" in compiled.stderr
    (row,) = json.loads(sluice("list", "--json", *where).stdout)
    assert (row["name"], row["labels"]) == ("mine", "S10, injection")
    assert row["built"].startswith("onnx, tensorrt-rtx")
    assert row["served"].startswith("no Triton at")


def test_the_readme_shows_these_commands() -> None:
    """What is tested above is what people read."""
    readme = Path(__file__).resolve().parents[2] / "triton_models" / "README.md"
    text = readme.read_text()
    assert "--as classifier --classes=-,S10,injection" in text
    for command in ("export", "verify", "compile", "list"):
        assert f"sluice guard {command}" in text


def test_the_list_tells_weights_that_are_not_the_graph_s(
    prompt_guard: Made, tmp_path: Path
) -> None:
    """Also where they lie beside the graph."""
    made = export(
        prompt_guard.checkpoint, "large", prompt_guard.recipe, tmp_path, one_file_bytes=1000
    )
    card = cards.load(made.folder)
    assert guard._built(made.folder, card) == "onnx"
    data = made.folder / "1" / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    assert guard._built(made.folder, card) == "onnx (not its card's)"


@pytest.mark.parametrize(
    "case", [(0.06, None, True), (0.02, None, False), (0.06, 0.03, False), (0.02, 0.05, True)]
)
def test_parity_allows_what_rounding_needs_unless_a_bound_is_given(
    own_guard: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[float, float | None, bool],
) -> None:
    """A bf16 guard's card says 0.06; its checkpoint is compared within that too."""
    tolerance, bound, passes = case
    folder = Path(shutil.copytree(own_guard.folder, tmp_path / "own"))
    card = folder / "card.toml"
    card.write_text(card.read_text().replace("tolerance = 0.02", f"tolerance = {tolerance}"))
    off = verify.Compared(text=1, label="S10", score=0.50, expected=0.54, decided_otherwise=())
    monkeypatch.setattr(verify, "parity", lambda *_: [off])

    def run() -> None:
        guard.verify_(
            "own", checkpoint=str(own_guard.checkpoint), repository=tmp_path, bound=bound,
            precision="fp32", served=False,
        )  # fmt: skip

    if passes:
        run()
    else:
        with pytest.raises(Misconfigured, match="parity text 1 scores"):
            run()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("export", "x", "--as", "llama-guard-9", "--name", "y"), "Use one of prompt-guard-2"),
        (("export", "x", "--as", "classifier", "--name", "y"), "Say them in order"),
        (("export", "/nowhere", "--as", "prompt-guard-2", "--name", "y", "--precision", "fp8"),
         "sluice guard compile"),
        (("compile", "absent"), "`sluice guard list` shows those there are"),
        (("verify", "absent"), "there is no guard 'absent'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_a_remedy(arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, no traceback."""
    done = sluice(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
