"""Bounds on what a policy may change, such as `--max-newly-blocked 0.2%`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import Misconfigured
from pipeline.replay.tally import Tally
from pipeline.selection import parse_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """At most so many records, or so large a share of them, newly `what`."""

    what: str
    text: str
    records: int | None
    share: float | None

    def __str__(self) -> str:
        return f"newly {self.what} at most {self.text}"


def parse(what: str, text: str) -> Bound:
    """A bound as written: `0.2%` or `0.002` is a share, `25` or `0` a number of records.

    Raises Misconfigured when it is neither.
    """
    given = text.strip()
    if given.isascii() and given.isdigit() and len(given) < 16:
        return Bound(what=what, text=given, records=int(given), share=None)
    try:
        return Bound(what=what, text=given, records=None, share=parse_share(given))
    except Misconfigured:
        raise Misconfigured(
            f"--max-newly-{what} {text[:32]!r} is no bound",
            remedy="Write a share of the records, such as 0.2%, or a number of them, such as 0",
        ) from None


def breaches(bounds: Sequence[Bound], tally: Tally) -> Iterator[str]:
    """A line for each bound that does not hold."""
    for bound in bounds:
        found, of = tally.newly(bound.what), tally.compared
        share = found / of if of else 0.0
        too_many = bound.records is not None and found > bound.records
        if too_many or (bound.share is not None and share > bound.share):
            yield f"{bound}: {found:,} of {of:,} records ({share:.3%})"


def broken_determinism(tally: Tally) -> Iterator[str]:
    """A line for what came out otherwise though policy and guard are the same."""
    check = tally.determinism
    if not check.checked:
        yield "determinism: no record was judged by this policy and guard, so none was checked"
    if check.other_decision:
        yield (
            f"determinism: {check.other_decision:,} of {check.checked:,} decisions"
            " came out otherwise"
        )
    if check.other_scores:
        yield (
            f"determinism: {check.other_scores:,} of {check.checked:,} records have a score that"
            f" differs by more than {check.tolerance:g}"
        )
