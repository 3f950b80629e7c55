"""Which writer schemas let a short message take the decoder without end. Pure.

A record that holds itself is read by a recursion as deep as the message says:
some hundred kilobytes end the process, and end it again at each redelivery.
Array items of no bytes make a dozen bytes stand for 2^63 items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_LEAST_BYTES: Final[Mapping[str, int]] = {"null": 0, "float": 4, "double": 8}
"""Of types that take no bytes, or several at least; any other takes one."""


def refuse_endless(schema: Any) -> None:
    """Raise ValueError naming the type for a parsed schema that bounds no reading."""
    _Walk().least_bytes(schema)


class _Walk:
    """One walk over a parsed schema: the named types met, by what they take at least."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._open: set[str] = set()

    def least_bytes(self, schema: Any) -> int:
        """How many bytes a value takes at least."""
        if isinstance(schema, str):
            return self._named(schema)
        if isinstance(schema, list):
            for branch in schema:
                self.least_bytes(branch)
            return 1
        return self._defined(schema)

    def _defined(self, schema: Mapping[str, Any]) -> int:
        least = 1
        match schema["type"]:
            case "record" | "error":
                least = self._record(schema)
            case "array":
                if self.least_bytes(schema["items"]) == 0:
                    raise ValueError("the items of an array take no bytes")
            case "map":
                self.least_bytes(schema["values"])
            case "fixed":
                least = self._done[schema["name"]] = int(schema["size"])
            case "enum":
                pass
            case inner:
                least = self.least_bytes(inner)
        return least

    def _named(self, name: str) -> int:
        if name in self._open:
            raise ValueError(f"the record {name} holds itself")
        return self._done.get(name, _LEAST_BYTES.get(name, 1))

    def _record(self, schema: Mapping[str, Any]) -> int:
        name = schema["name"]
        self._open.add(name)
        least = sum(self.least_bytes(field["type"]) for field in schema["fields"])
        self._open.remove(name)
        self._done[name] = least
        return least
