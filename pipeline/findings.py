"""How a check of the deployment ends: well, wrong or down, and what to do next."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pipeline.errors import Retryable, SluiceError

LIMIT_S: Final = 5.0
"""How long a check waits for what it asks."""

_REPORT: Final = "Look at the settings it concerns; if they are right, report it"


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WRONG = "wrong"
    DOWN = "down"
    SKIPPED = "skipped"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's end: what was found and, unless well, what to do next."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def worst(findings: Sequence[Finding]) -> State:
    """What all of it comes to: WRONG before DOWN before OK."""
    states = {finding.state for finding in findings}
    return next((state for state in (State.WRONG, State.DOWN) if state in states), State.OK)


async def finding(name: str, check: Coroutine[Any, Any, str], *, asked: str = "it") -> Finding:
    """A check's detail as OK; what it raised as WRONG or DOWN with the remedy.

    `asked` is the address to name when there is no answer.
    """
    try:
        async with asyncio.timeout(LIMIT_S):
            return Finding(name=name, state=State.OK, detail=await check)
    except TimeoutError:
        remedy = "Look at its load and at the network between here and there"
        detail = f"{asked} gives no answer in {LIMIT_S:g} s"
        return Finding(name=name, state=State.DOWN, detail=detail, remedy=remedy)
    except SluiceError as error:
        state = State.DOWN if isinstance(error, Retryable) else State.WRONG
        return Finding(name=name, state=state, detail=error.message, remedy=_remedy(error))
    except Exception as error:  # whatever it is, the other checks get their turn
        return Finding(name=name, state=State.WRONG, detail=_unexpected(error), remedy=_REPORT)


def skipped(name: str, because: str) -> Finding:
    """A check that would only have repeated an earlier one's failure."""
    return Finding(name=name, state=State.SKIPPED, detail=f"not asked: {because}")


def _unexpected(error: Exception) -> str:
    """An error's kind and place: its words may quote a setting."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} ({Path(place.filename).name}, line {place.lineno})"


def _remedy(error: SluiceError) -> str:
    """The remedy without its pointer to the command that shows this."""
    return error.remedy.partition("; `sluice doctor`")[0]
