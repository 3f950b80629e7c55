"""Where the files that ship with Sluice lie, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """Path of a shipped file or folder, such as `shipped("schemas")`.

    A wheel carries the repository's top-level folders inside the package; a
    checkout has them beside it.
    """
    inside = _PACKAGE.joinpath("_shipped", *parts)
    return inside if inside.exists() else _PACKAGE.parent.joinpath(*parts)


def packaged(*parts: str) -> Path:
    """Path of a file inside the package, such as `packaged("policies")`."""
    return _PACKAGE.joinpath(*parts)
