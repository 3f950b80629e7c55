"""Targets: files that people hand over are read, or refused by file, place and remedy."""

from __future__ import annotations

import gzip
import json
import lzma
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from pipeline.errors import Misconfigured
from pipeline.evaluate import formats
from pipeline.guards import cards
from pipeline.guards.templates import ChatTemplate
from tests.unit.fakes import write_card

from .draws import Draws, edited
from .target import Target

SAMPLES: Final = Path(__file__).resolve().parent.parent / "data" / "evaluate"
_OPTIONS: Final = formats.Options(columns={})
_CELLS: Final = (
    '"', '""', ",", "\n", "\r", "\r\n", "\x00", "\ufeff", "{", "}", "[", "]", ":", "null", "1",
    "true", "text", "label", "prompt", "Goal", "Target", "Behavior", "ü", "a", " ", "9" * 400,
    '"text"', '"label"', '{"text": "a", "label": 1}', '{"t": "x", "y": 1, "h": "b"}',
)  # fmt: skip


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="sluice-fuzz-"))


@cache
def _samples() -> tuple[bytes, ...]:
    """Each sample set, in one of the forms that public sets are distributed in."""
    return tuple(path.read_bytes() for path in sorted(SAMPLES.iterdir()))


def labelled(data: bytes) -> None:
    """A labelled set, plain or compressed, damaged or not, in any format."""
    draws = Draws(data)
    wanted = draws.pick(tuple(formats.FORMATS)) if draws.flag() else ""
    raw, ending = _content(draws), draws.pick((".csv", ".jsonl", ".csv.gz", ".jsonl.xz"))
    if ending.endswith(".gz"):
        raw = edited(gzip.compress(raw, 1, mtime=0), draws)
    elif ending.endswith(".xz"):
        raw = edited(lzma.compress(raw, preset=0), draws)
    path = _folder() / f"benign{ending}"
    path.write_bytes(raw)
    loaded = formats.load(f"{wanted}:{path}" if wanted else str(path), _OPTIONS)
    assert loaded.items
    assert len({item.id for item in loaded.items}) == len(loaded.items)
    assert all(item.text.strip() for item in loaded.items)


def _content(draws: Draws) -> bytes:
    match draws.whole(0, 2):
        case 0:
            return edited(draws.pick(_samples()), draws)
        case 1:
            return "".join(draws.pick(_CELLS) for _ in range(draws.whole(0, 40))).encode()
        case _:
            return draws.raw(draws.whole(0, 400))


def card(data: bytes) -> None:
    """A guard's card, edited anywhere, is a card or Misconfigured."""
    draws = Draws(data)
    folder = _card_folder()
    text = _card_text()
    value = edited(text, draws) if draws.flag() else _replaced(text, draws)
    (folder / "card.toml").write_bytes(value)
    found = cards.load(folder)
    assert found.labels
    assert len(found.scale) == len(found.labels)
    assert found.buckets[-1] == found.window.max_length


_VALUES: Final = (
    "0", "-1", "1e999", "nan", "inf", "[]", '""', "{}", "[" * 1200, "9" * 5000,
    '"' + "x" * 300 + '"', '"a\\u0000b"', '"."', '["prompt"]', "1.5", "true", '"softmax"',
    '["-", "unsafe"]', "2026-01-01",
)  # fmt: skip


def _replaced(text: bytes, draws: Draws) -> bytes:
    """The card with the values of some lines replaced."""
    lines = text.decode().split("\n")
    for _ in range(draws.whole(1, 3)):
        at = draws.whole(0, len(lines) - 1)
        key, equals, _old = lines[at].partition(" = ")
        lines[at] = key + equals + (draws.pick(_VALUES) if equals else "")
    return "\n".join(lines).encode()


@cache
def _card_folder() -> Path:
    folder = _folder() / "guard"
    folder.mkdir()
    return write_card(folder)


@cache
def _card_text() -> bytes:
    return (_card_folder() / "card.toml").read_bytes()


def template_file(data: bytes) -> None:
    """A template's file is a template or Misconfigured."""
    draws = Draws(data)
    path = _folder() / "template.json"
    path.write_bytes(draws.rest() if draws.flag() else _template(draws))
    found = ChatTemplate.read(path)
    assert found.render("t", None, completion=False).count("t") >= 1


_SLOTTED: Final = ("{{text}}", "{{prompt}}{{text}}", "", None, 7, [], {}, True)


def _template(draws: Draws) -> bytes:
    names = ("prompt", "completion", "completion_alone", "continuation", "more")
    return json.dumps({name: draws.pick(_SLOTTED) for name in names[: draws.whole(3, 5)]}).encode()


def _seeds() -> list[bytes]:
    mac, quotes, deep = b"text\rlabel\r", b'"text"x,label\n', b'{"text": ' + b"[" * 300
    return [b"\x00\x02\x01\x40" + raw.ljust(320, b" ") for raw in (mac, quotes, deep)]


def _template_seeds() -> list[bytes]:
    return [b"\x01" + b"[" * 2000, b'\x01{"prompt": 1}', b"\x00\x01\x00\x01\x00\x00"]


TARGETS: Final = (
    Target(name="labelled", entry=labelled, allowed=(Misconfigured,), seeds=_seeds, share=1),
    Target(name="card", entry=card, allowed=(Misconfigured,), share=1),
    Target(name="template-file", entry=template_file, allowed=(Misconfigured,),
           seeds=_template_seeds, share=1, max_bytes=4096),
)  # fmt: skip
