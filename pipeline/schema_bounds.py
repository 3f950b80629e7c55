"""Which writer schemas let a short message take the decoder without end. Pure.

A record that holds itself is read by a recursion as deep as the message says:
some hundred kilobytes end the process, and end it again at each redelivery.
A chain of ten thousand records, each in the next, does the same. Array items
of no bytes make a dozen bytes stand for 2^63 items; twenty records that each
hold the one before twice make one byte stand for a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

MAX_DEPTH: Final = 200
"""Values within values; fastavro's recursion ends the process somewhere above 5,000."""
MAX_UNPAID: Final = 10_000
"""Values of no bytes in one record."""
PER_BYTE: Final = 8
"""So many values of no bytes does each byte read pay for."""


class _Cost(NamedTuple):
    """What a value can cost: how deep it goes, and its values of no bytes less those paid for.

    Small sums bound the time: a message of n bytes has n values that take bytes, and
    `PER_BYTE` times n others, but for those few that `MAX_UNPAID` lets each record owe.
    """

    depth: int
    unpaid: int


def _of_bytes(size: int) -> _Cost:
    return _Cost(depth=1, unpaid=-PER_BYTE * size if size else 1)


_SIZES: Final[Mapping[str, int]] = {"null": 0, "float": 4, "double": 8}
"""Of types that take no bytes, or several at least; any other takes one."""


def refuse_endless(schema: Any) -> None:
    """Raise ValueError naming the type for a parsed schema that bounds no reading."""
    _Walk().cost(schema)


class _Walk:
    """One walk over a parsed schema: the named types met, by what they can cost."""

    def __init__(self) -> None:
        self._done: dict[str, _Cost] = {}
        self._open: set[str] = set()

    def cost(self, schema: Any) -> _Cost:
        """What a value can cost at most, its arrays and maps taken as empty."""
        if isinstance(schema, str):
            return self._named(schema)
        if isinstance(schema, list):
            return self._union(schema)
        return self._defined(schema)

    def _defined(self, schema: Mapping[str, Any]) -> _Cost:
        match schema["type"]:
            case "record" | "error":
                return self._record(schema)
            case "array":
                return self._items(self.cost(schema["items"]), "the items of an array")
            case "map":
                # Every key takes a byte.
                depth, unpaid = self.cost(schema["values"])
                return self._items(_Cost(depth, unpaid - PER_BYTE), "the values of a map")
            case "fixed":
                found = self._done[schema["name"]] = _of_bytes(int(schema["size"]))
                return found
            case "enum":
                return _of_bytes(1)
            case inner:
                return self.cost(inner)

    def _named(self, name: str) -> _Cost:
        if name in self._open:
            raise ValueError(f"the record {name} holds itself")
        return self._done.get(name) or _of_bytes(_SIZES.get(name, 1))

    def _union(self, branches: list[Any]) -> _Cost:
        found = [self.cost(branch) for branch in branches]
        depth = max((each.depth for each in found), default=0)
        return _Cost(depth + 1, max((each.unpaid for each in found), default=0) - PER_BYTE)

    def _items(self, each: _Cost, what: str) -> _Cost:
        if each.unpaid > 0:
            raise ValueError(f"{what} take no bytes, or one for more than {PER_BYTE} values")
        return _Cost(each.depth + 1, -PER_BYTE)

    def _record(self, schema: Mapping[str, Any]) -> _Cost:
        name = schema["name"]
        self._open.add(name)
        depth, unpaid = 0, 1
        for field in schema["fields"]:
            inner = self.cost(field["type"])
            depth, unpaid = max(depth, inner.depth), unpaid + inner.unpaid
            # At every field, for a message may end where the bytes that pay would begin.
            if depth >= MAX_DEPTH:
                raise ValueError(f"the record {name} is nested more than {MAX_DEPTH} deep")
            if unpaid > MAX_UNPAID:
                raise ValueError(f"the record {name} has over {MAX_UNPAID:,} values of no bytes")
        self._open.remove(name)
        found = self._done[name] = _Cost(depth + 1, unpaid)
        return found
