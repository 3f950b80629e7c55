"""The fuzz targets under hypothesis: fewer inputs than `make fuzz`, the same at each run."""

from __future__ import annotations

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .__main__ import main
from .catalogue import TARGETS, shared_out

EXAMPLES = 60


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_hold(name: str) -> None:
    """What libFuzzer begins with holds already; among it is what was once found."""
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_the_property_holds_for_any_bytes(name: str) -> None:
    """Random bytes, and seeds with bytes put in, end as the target allows."""
    target = TARGETS[name]
    seeds = [seed[: target.max_bytes] for seed in target.seeds()] or [b""]
    inputs = st.binary(max_size=min(target.max_bytes, 160)) | st.builds(
        lambda seed, at, more: seed[:at] + more + seed[at:],
        st.sampled_from(seeds),
        st.integers(0, 40),
        st.binary(max_size=12),
    )

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def holds(data: bytes) -> None:
        target.run(data)

    holds()


def test_a_run_is_shared_out_whole() -> None:
    """Each target has a part, and the parts make the whole."""
    shares = shared_out(1_000_000)
    assert set(shares) == set(TARGETS)
    assert 1_000_000 <= sum(shares.values()) <= 1_000_000 + len(TARGETS)
    assert min(shared_out(1).values()) == 1


def test_one_input_is_run_again() -> None:
    """What a finding prints can be given back; here it is no finding any more."""
    assert main(["bound", "--input", base64.b64encode(b"\x00\x01-1h").decode()]) == 0


@pytest.mark.parametrize("wrong", [["nonsense"], ["--input", "AA=="], ["plan", "--runs", "0"]])
def test_a_wrong_command_line_ends_with_two(wrong: list[str]) -> None:
    """Usage, not a run of nothing that looks green."""
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
