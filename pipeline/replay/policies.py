"""Which policy a record is decided by: one for all, or the one of its day. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from pipeline.errors import Misconfigured
from pipeline.policy import Policy

RECORDED: Final = "recorded"
"""Asks for the policy that judged each record."""

Lookup = Callable[[str], Policy | None]
"""The policy with a digest, where it is known."""


class Choice(Protocol):
    """The policy for a record, by the digest of the one that judged it then."""

    def of(self, digest: str) -> Policy | None:
        """The policy; None where it cannot be found."""


class OneForAll:
    """The same policy for every record."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def of(self, _digest: str) -> Policy | None:
        """That policy."""
        return self.policy


class OfItsDay:
    """The policy that judged the record; each is looked up once."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._found: dict[str, Policy | None] = {}

    def of(self, digest: str) -> Policy | None:
        """The policy with this digest."""
        if digest not in self._found:
            self._found[digest] = self._lookup(digest)
        return self._found[digest]


def by_digest(lookup: Lookup, digest: str) -> Policy:
    """The policy with a digest; raises Misconfigured when it cannot be found."""
    found = lookup(digest)
    if found is None:
        raise Misconfigured(
            f"no policy with the digest {digest} is known",
            remedy="`sluice policy show` prints the digest of the configured policy; for another,"
            " name its file with --policy FILE",
        )
    return found


def is_digest(text: str) -> bool:
    """True for what a policy's digest looks like."""
    algorithm, _, value = text.partition(":")
    return algorithm == "sha256" and len(value) == 64 and set(value) <= set("0123456789abcdef")
