"""Shares of counts with their 95 % interval. Pure."""

from __future__ import annotations

import math
from typing import Final

Z95: Final = 1.959964
"""The normal quantile of a two-sided 95 % interval."""

Interval = tuple[float, float]


def wilson(hits: int, rows: int) -> Interval:
    """Wilson's score interval of a share; it stays honest at 0 and at 1.

    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.
    """
    if not rows:
        return math.nan, math.nan
    share, z2 = hits / rows, Z95 * Z95
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z95 * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)
