"""What processes used of the machine, from looks at them about a second apart. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np

from loadtest.rows import Vitals

_STRETCH_NS: Final = 3_000_000_000
"""CPU is counted in ticks of 10 ms: over less than this a share would be coarse."""


def usage(
    looks: Sequence[Vitals], begin_ns: int, end_ns: int, messages: int
) -> dict[str, dict[str, float]]:
    """By process: CPU from begin to end, in cores and in us a message; peak MiB of all looks."""
    within = around(looks, begin_ns, end_ns)
    return {
        name: {
            "cpu_cores": cores(within, name),
            "cpu_us_per_message": 1e6 * spent(within, name)[0] / messages,
            "rss_max_mib": rss_max_bytes(looks, name) / 2**20,
        }
        for name in sorted({name for look in looks for name in look.usage})
    }


def around(looks: Sequence[Vitals], begin_ns: int, end_ns: int) -> Sequence[Vitals]:
    """From the last look at or before the begin to the first at or after the end."""
    at = [look.at_ns for look in looks]
    return looks[max(0, bisect_right(at, begin_ns) - 1) : bisect_left(at, end_ns) + 1]


def spent(looks: Sequence[Vitals], name: str) -> tuple[float, float]:
    """CPU seconds that a process used over the looks at it, and how long they took."""
    known = [look for look in looks if name in look.usage]
    if len(known) < 2:
        return 0.0, 0.0
    first, last = known[0], known[-1]
    return last.usage[name].cpu_s - first.usage[name].cpu_s, (last.at_ns - first.at_ns) / 1e9


def cores(looks: Sequence[Vitals], name: str) -> float:
    """The cores that a process used on average; 0 without two looks at it."""
    cpu_s, seconds = spent(looks, name)
    return cpu_s / seconds if seconds > 0 else 0.0


def rss_max_bytes(looks: Sequence[Vitals], name: str) -> int:
    """The most memory that a process was seen with."""
    return max(look.usage[name].rss_bytes for look in looks if name in look.usage)


def busiest(looks: Sequence[Vitals], name: str) -> float:
    """The cores that a process used in its busiest three seconds; of a shorter run, in all of it.

    A mean over a run and its settling would hide a process that had no room left for a while.
    """
    known = [look for look in looks if name in look.usage]
    at = np.array([look.at_ns for look in known], dtype=np.int64)
    used_s = np.array([look.usage[name].cpu_s for look in known])
    after = np.searchsorted(at, at + _STRETCH_NS)
    begin, end = np.flatnonzero(after < len(at)), after[after < len(at)]
    if not len(begin):
        return cores(looks, name)
    return float(np.max((used_s[end] - used_s[begin]) / (at[end] - at[begin]) * 1e9))
