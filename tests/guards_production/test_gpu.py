"""Full-size engines on a GPU: built, compared, timed. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.guards import gpu_engines
from pipeline.guards.gpu_engines import Timing

pytestmark = pytest.mark.guards


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["pg2-86m", "lg3-1b"])
def test_a_full_size_engine_agrees_with_pytorch(name: str, tmp_path: Path) -> None:
    """Every profile, full and padded rows, within the bound of half precision."""
    if reason := gpu_engines.why_not():
        pytest.skip(reason)
    timings = list(gpu_engines.measure(name, tmp_path))
    assert {timing.tokens for timing in timings} == set(
        gpu_engines.LENGTHS.get(name, gpu_engines.CHAT_LENGTHS)
    )


def test_without_a_gpu_the_script_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason is told, and the exit code is that of something missing."""
    if not gpu_engines.why_not():
        pytest.skip("there is a GPU here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gpu_engines"])
        assert gpu_engines.main() == 3
    assert gpu_engines.why_not() in capsys.readouterr().err


def test_no_percentile_is_above_the_slowest_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thirty calls the slowest took a hundred milliseconds."""
    calls_s = [0.001] * (gpu_engines.REPEATS - 1) + [0.1]
    clock = iter([moment for call_s in calls_s for moment in (0.0, call_s)])
    monkeypatch.setattr(gpu_engines.time, "perf_counter", lambda: next(clock))
    engine: Any = SimpleNamespace(run=lambda *_: None)
    timing = gpu_engines._timed("lg3-1b", engine, SimpleNamespace(shape=(8, 256)), None, 0)
    assert timing.p50_ms == pytest.approx(1)
    assert 50 < timing.p99_ms <= 100


def test_the_table_names_rows_per_second() -> None:
    """Eight windows in four milliseconds are two thousand a second."""
    timing = Timing(model="lg3-1b", rows=8, tokens=256, p50_ms=4.0, p99_ms=5.0)
    assert "| lg3-1b | 8 | 256 | 4.00 | 5.00 | 2,000 |" in gpu_engines.table([timing], "a GPU")


def test_the_shapes_have_the_published_sizes() -> None:
    """Counted without weights: 22M and 86M parameters besides embeddings; 1B and 8B with."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def count(name: str, *, embeddings: bool) -> float:
        sizes = gpu_engines.MODELS[name]
        with torch.device("meta"):
            model = (
                transformers.DebertaV2ForSequenceClassification(
                    transformers.DebertaV2Config(**sizes)
                )
                if name.startswith("pg2")
                else transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
            )
        total = sum(each.numel() for each in model.parameters())
        table = model.get_input_embeddings().weight.numel()
        return (total if embeddings else total - table) / 1e6

    assert count("pg2-22m", embeddings=False) == pytest.approx(22, rel=0.05)
    assert count("pg2-86m", embeddings=False) == pytest.approx(86, rel=0.05)
    assert count("lg3-1b", embeddings=True) == pytest.approx(1236, rel=0.01)
    assert count("lg3-8b", embeddings=True) == pytest.approx(8030, rel=0.01)
