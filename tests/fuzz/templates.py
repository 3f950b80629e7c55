"""Targets: no text forges a border of the template, and coverage says what was seen."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from msgspec import structs

from pipeline.events import Kind, Message
from pipeline.guards import cards, llama_guard
from pipeline.guards.framing import frame
from pipeline.guards.templates import PROMPT, TEXT, ChatTemplate, fill
from pipeline.normalisation import normalise
from pipeline.resources import shipped
from pipeline.scoring import Guard
from pipeline.tokenization import Tokenizer
from pipeline.windows import Windowed
from tests.support import checkpoints
from tests.unit.fakes import write_card

from .draws import TRICKY, Draws
from .target import Target

SHORT: Final = ChatTemplate(
    prompt="<|begin_of_text|>User: {{text}}\n\n<|eot_id|>",
    completion="<|begin_of_text|>User: {{prompt}}\n\nAgent: {{text}}\n\n<|eot_id|>",
    completion_alone="<|begin_of_text|>User: \n\nAgent: {{text}}\n\n<|eot_id|>",
    continuation="\n\nunsafe\nS",
)
_KINDS: Final = tuple(Kind)


@cache
def _chat_guards() -> tuple[Guard, ...]:
    """A short template in narrow windows, and the published one in wide ones."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-fuzz-"))
    card = cards.load(write_card(folder))
    tokenizer = Tokenizer(checkpoints.byte_pairs(folder))
    published = llama_guard.template(llama_guard.LLAMA_GUARD_3_1B)
    narrow = replace(card.window, max_length=64, overlap=6, context_length=8)
    wide = replace(card.window, max_length=2048, overlap=32, context_length=64)
    return (
        Guard(card=replace(card, template=SHORT, window=narrow), tokenizer=tokenizer),
        Guard(card=replace(card, template=published, window=wide), tokenizer=tokenizer),
    )


@cache
def _shipped_guard() -> Guard:
    """The default guard: the tokenizer and the card that ship."""
    folder = shipped("triton_models") / "default"
    card = cards.load(folder)
    return Guard(card=card, tokenizer=Tokenizer(card.tokenizer))


def _message(draws: Draws) -> Message:
    kind = draws.pick(_KINDS)
    text = draws.text(40, surrogates=True) * draws.pick((1, 1, 1, 9))
    prompt = draws.text(12, surrogates=True) if kind is Kind.COMPLETION and draws.flag() else None
    return Message(message_id="1", kind=kind, text=text, prompt=prompt)


def chat(data: bytes) -> None:
    """In a chat template the special tokens are the template's own, in its own order."""
    draws = Draws(data)
    guard = draws.pick(_chat_guards())
    said = _message(draws)
    limit = draws.whole(1, 5)
    (framed,) = frame(guard.card, guard.tokenizer, [said], max_windows=limit)
    _sane(framed, guard.card.window.max_length, limit)
    specials = set(guard.tokenizer.special_ids.values())
    empty = structs.replace(said, text="", prompt=None)
    (bare,) = frame(guard.card, guard.tokenizer, [empty], max_windows=1)
    own = [token for token in bare.windows[0] if token in specials]
    for window in framed.windows:
        assert [token for token in window if token in specials] == own, "a forged border"
    other = frame(guard.card, guard.tokenizer, [empty, said], max_windows=limit)[1]
    assert other == framed, "a neighbour changed the framing"


def cut_up(data: bytes) -> None:
    """In the shipped guard's windows CLS stands first and SEP last, and nowhere in between."""
    draws = Draws(data)
    guard, said, limit = _shipped_guard(), _message(draws), draws.whole(1, 5)
    spec = guard.card.window
    (framed,) = frame(guard.card, guard.tokenizer, [said], max_windows=limit, plain_too=True)
    _sane(framed, spec.max_length, 2 * limit)
    (bare,) = frame(guard.card, guard.tokenizer, [said], max_windows=limit)
    assert framed.coverage == bare.coverage
    assert framed.windows[: len(bare.windows)] == bare.windows
    for window in framed.windows:
        found = Counter(window)
        assert (window[0], window[-1]) == (spec.cls_id, spec.sep_id)
        assert found[spec.cls_id] == 1
        assert found[spec.sep_id] <= 1 + bool(said.prompt)


def _sane(framed: Windowed, longest: int, limit: int) -> None:
    seen = framed.coverage
    assert 0 <= seen.scanned_tokens <= seen.total_tokens
    assert 1 <= len(framed.windows) <= limit
    assert all(1 <= len(window) <= longest for window in framed.windows)
    assert len(framed.windows) == 1 or seen.scanned_tokens > 0 or seen.total_tokens == 0


def filled(data: bytes) -> None:
    """A slot is filled once, and what a user typed into it is never searched again."""
    draws = Draws(data)
    version = draws.pick(tuple(llama_guard.VERSIONS.values()))
    template = _template(version)
    text, prompt = draws.text(12, surrogates=True), draws.text(12, surrogates=True)
    completion = draws.flag()
    found = template.render(text, prompt, completion=completion)
    shape = template.shape(prompt, completion=completion)
    parts = _around(shape, (TEXT, PROMPT))
    values = {TEXT: text, PROMPT: prompt}
    assert found == "".join(values.get(part, part) for part in parts)
    assert fill(shape, {}) == shape
    stripped = template.render(text.strip(), prompt.strip(), completion=completion)
    turns = [("user", prompt), ("assistant", text)] if completion else [("user", text)]
    if not completion or prompt:
        answer = template.continuation
        assert stripped == llama_guard.render(version, turns) + answer


@cache
def _template(version: llama_guard.Version) -> ChatTemplate:
    return llama_guard.template(version)


def _around(text: str, slots: Sequence[str]) -> list[str]:
    """The text cut at its slots, the slots kept."""
    at = min((found for slot in slots if (found := text.find(slot)) >= 0), default=-1)
    if at < 0:
        return [text]
    slot = next(each for each in slots if text.startswith(each, at))
    return [text[:at], slot, *_around(text[at + len(slot) :], slots)]


def plain_form(data: bytes) -> None:
    """Normalising raises nothing, never lengthens, and is done after one pass."""
    draws = Draws(data)
    text = data.decode("utf-8", "surrogateescape") if draws.flag() else _disguised(draws)
    plain = normalise(text)
    assert len(plain) <= len(text)
    assert normalise(plain) == plain, "the plain form has another plain form"


_LETTERS: Final = (
    *"kilokilo013457@$@$ .-_*",
    "\u200b",
    "і",
    "ｋ",
    "𝐤",
    "²",
    "е\u0301",
    "K",
    *TRICKY,
)


def _disguised(draws: Draws) -> str:
    return "".join(draws.pick(_LETTERS) for _ in range(draws.whole(0, 30)) if draws.left)


def _seeds() -> list[bytes]:
    borders = [bytes([0, 0, 4, 0x80 + number, 65, 0x80 + number, 66]) for number in range(31)]
    return [*borders, bytes([1, 1, 30, *range(0x80, 0xA0)]), b"\x01\x00\x28" + b"soup " * 20]


def _plain_seeds() -> list[bytes]:
    texts = ("k i l l him", "b0mb p@ss", "k1ll", "кill", "a.b.c.d.e")
    return [b"\x01" + text.encode() for text in texts]


TARGETS: Final = (
    Target(name="template", entry=chat, seeds=_seeds, share=3),
    Target(name="framing", entry=cut_up, seeds=_seeds, share=5),
    Target(name="slots", entry=filled, seeds=_seeds, share=8),
    Target(name="plain-form", entry=plain_form, seeds=_plain_seeds, share=8),
)
