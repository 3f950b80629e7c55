"""Thresholds such as `p95_ms <= 500` or `dropped <= 1%`, and whether they hold. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(
    r"\s*([a-z][a-z0-9_]*)\s*(<=|>=|==|<|>)\s*(\d+(?:\.\d+)?)\s*(%?)\s*", re.ASCII
)
_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
COUNTS: Final = (
    "sent",
    "accepted",
    "verdicts",
    "lost",
    "dropped",
    "duplicates",
    "dead_lettered",
    "degraded",
    "both",
)
"""Counts; a bound in % takes them as a share of what was scheduled."""

STATISTICS: Final = ("avg", "min", "p50", "p75", "p90", "p95", "p99", "p999", "max")
ROWS: Final = (
    "",
    "naive_",
    "added_",
    "late_",
    "ack_",
    "to_worker_",
    "judge_",
    "conclude_",
    "deliver_",
)
"""Prefixes of a statistic in milliseconds; none is end to end."""

NAMES: Final = frozenset(
    [
        *COUNTS,
        "throughput_per_s",
        "offered_per_s",
        "lag_max",
        "backlog_max",
        *(f"{row}{name}_ms" for row in ROWS for name in STATISTICS),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """One bound: `name` `relation` `bound`, the bound a share when `share` is true."""

    text: str
    name: str
    relation: str
    bound: float
    share: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A threshold and what was measured; `value` is None when nothing was."""

    threshold: Threshold
    value: float | None

    @property
    def holds(self) -> bool:
        """False also when there is no value: no answer is not a good answer."""
        limit = self.threshold
        return self.value is not None and _HOLDS[limit.relation](self.value, limit.bound)


def parse(text: str) -> Threshold:
    """The threshold a text states; raises ValueError naming what is wrong."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form `name <= number` or `name <= number%`")
    name, relation, bound, percent = found.groups()
    if name not in NAMES:
        raise ValueError(f"{name!r} is not measured; there are {', '.join(sorted(COUNTS))}, p95_ms")
    if percent and name not in COUNTS:
        raise ValueError(f"{name!r} is not a count, so it cannot be a percentage")
    return Threshold(
        text=text.strip(), name=name, relation=relation, bound=float(bound), share=bool(percent)
    )


def check(
    thresholds: Sequence[Threshold], values: Mapping[str, float | None]
) -> tuple[Checked, ...]:
    """Each threshold against `values` by name; shares are of `values["scheduled"]`, in %."""
    return tuple(Checked(threshold=each, value=_value(each, values)) for each in thresholds)


def _value(threshold: Threshold, values: Mapping[str, float | None]) -> float | None:
    value = values.get(threshold.name)
    if value is None or not threshold.share:
        return value
    scheduled = values.get("scheduled") or 0.0
    return 100.0 * value / scheduled if scheduled else None
