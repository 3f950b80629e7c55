"""The settings file with every default, commented, to start one's own from. Pure."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.settings import Settings

_HEAD: Final = """\
# Settings of Sluice. Every key stands here with its default, commented out:
# remove the '# ' to change one. The environment wins over this file, such as
# SLUICE_KAFKA__BOOTSTRAP_SERVERS for bootstrap_servers in [kafka].
# `sluice config show` prints what is in force and where it came from.
"""


def template() -> str:
    """The text of `sluice.toml`; every uncommented line of it is valid TOML."""
    defaults = Settings.model_construct()
    return "\n".join((_HEAD, *_sections(defaults)))


def _sections(defaults: Settings) -> Iterator[str]:
    for name in Settings.model_fields:
        section: BaseModel = getattr(defaults, name)
        yield f"# {inspect.getdoc(type(section))}"
        yield f"[{name}]"
        for key, field in type(section).model_fields.items():
            yield from _entry(key, field, getattr(section, key))
        yield ""


def _entry(key: str, field: FieldInfo, value: Any) -> Iterator[str]:
    if field.description:
        yield f"# {field.description}"
    if field.default_factory is not None:
        yield f"# {key}: by default this release's own, or this machine's"
    yield f'# {key} = ""  # not set' if value is None else f"# {key} = {_toml(value)}"


def _toml(value: Any) -> str:
    """A scalar or a list of them; JSON's strings, numbers and lists are TOML's too."""
    if isinstance(value, tuple | list):
        return json.dumps(list(value))
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
