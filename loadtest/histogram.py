"""Latencies in an HdrHistogram: microseconds, three significant digits, mergeable."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from hdrh.histogram import HdrHistogram

_LOWEST_US: Final = 1
_HIGHEST_US: Final = 4 * 3600 * 1_000_000
_DIGITS: Final = 3
_DEVIATION: Final = re.compile(rb"(StdDeviation +=) *[0-9.]+")
PERCENTILES: Final = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


class Latencies:
    """A histogram of durations; values beyond 1 us .. 4 h are held at the bound."""

    def __init__(self, histogram: Any = None) -> None:
        self._histogram = histogram or HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)

    @classmethod
    def of(cls, values_us: Iterable[float]) -> Self:
        """The histogram of durations in microseconds."""
        made = cls()
        for value in values_us:
            made.record_us(value)
        return made

    @classmethod
    def decode(cls, encoded: str) -> Self:
        """What `encode` returned, in another process perhaps."""
        return cls(HdrHistogram.decode(encoded.encode("ascii")))

    def encode(self) -> str:
        """The compressed form that HdrHistogram's tools read, in base64."""
        return bytes(self._histogram.encode()).decode("ascii")

    def record_us(self, value_us: float) -> None:
        """Count one duration in microseconds."""
        self._histogram.record_value(int(min(max(value_us, _LOWEST_US), _HIGHEST_US)))

    def add(self, other: Latencies) -> None:
        """Count what another histogram counted."""
        if other.count:  # an empty one would bring a minimum of 0 along
            self._histogram.add(other._histogram)

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return int(self._histogram.get_total_count())

    def summary_ms(self) -> Mapping[str, float] | None:
        """avg, min, p50..p999 and max in milliseconds; None when nothing was counted."""
        if not self.count:
            return None
        histogram = self._histogram
        return {
            "avg": histogram.get_mean_value() / 1000,
            "min": histogram.get_min_value() / 1000,
            **{
                name: histogram.get_value_at_percentile(share) / 1000
                for name, share in PERCENTILES.items()
            },
            "max": histogram.get_max_value() / 1000,
        }

    def curve_ms(self, percentiles: Iterable[float]) -> list[float]:
        """The values in milliseconds at percentiles (0..100)."""
        return [self._histogram.get_value_at_percentile(at) / 1000 for at in percentiles]

    def write_hgrm(self, path: Path) -> None:
        """Write the percentile distribution in milliseconds, as HdrHistogram's plotter reads it."""
        page = io.BytesIO()
        self._histogram.output_percentile_distribution(page, 1000.0, 5)
        # The library scales every figure but this one, which it leaves in microseconds.
        deviation = b"%13.3f" % (self._histogram.get_stddev() / 1000)
        path.write_bytes(_DEVIATION.sub(rb"\g<1>" + deviation, page.getvalue()))
