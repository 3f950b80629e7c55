"""Every fault, under load, on the real broker and the real server: all is accounted for."""

from __future__ import annotations

import pytest

from tests.chaos import results
from tests.chaos.catalogue import Fault
from tests.chaos.conftest import OpenScene
from tests.chaos.faults import FAULTS
from tests.chaos.harness import endure

_BY_NAME = {"ids": lambda fault: fault.name}


@pytest.mark.chaos
@pytest.mark.parametrize("fault", FAULTS, **_BY_NAME)
async def test_a_fault_loses_nothing(fault: Fault, open_scene: OpenScene) -> None:
    """One outcome an input, no commit goes back, and the operator sees what is said."""
    if why := fault.unless():
        results.leave_out(fault, why)
        pytest.skip(why)
    async with open_scene(fault) as scene:
        result = await endure(fault, scene, lasts_s=fault.lasts_s)
    results.keep(result)
    assert not result.broken, result


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.short_s is not None], **_BY_NAME)
async def test_a_short_fault_loses_nothing(fault: Fault, open_scene: OpenScene) -> None:
    """The quickest of them, shortened."""
    async with open_scene(fault) as scene:
        result = await endure(fault, scene, lasts_s=fault.short_s or 0.0)
    assert not result.broken, result
