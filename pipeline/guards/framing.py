"""From messages to the windows of token ids that a guard takes.

There are two layouts. `windows` cuts the tokens and puts the guard's special
tokens around each window (`pipeline.windows`). `chat-template` puts the text
into the guard's template; where that is too long, overlapping pieces of the
text take turns in it, so that every token is judged in some window.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from pipeline.events import Coverage, Kind, Message
from pipeline.guards.cards import Card
from pipeline.guards.templates import PROMPT, TEXT, ChatTemplate, fill
from pipeline.normalisation import normalise, reveal
from pipeline.tokenization import Tokenizer
from pipeline.windows import Windowed, covered, cut, spread

_SLACK: Final = 8
"""Tokens kept free because a piece's edges may tokenise differently than the whole."""

# Controls, formats, selectors, private use and the unassigned planes.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f"
    "\ufeff\ufff0-\ufffb\ue000-\uf8ff\U000e0000-\U000fffff\U00100000-\U0010ffff]{8,}"
)


def frame(
    card: Card,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    max_windows: int,
    plain_too: bool = False,
) -> list[Windowed]:
    """The windows of each message, at most `max_windows`, in order.

    With `plain_too` a disguised text's plain form adds its own windows, at most
    as many again. Coverage is that of the form of which less was seen, and never
    complete where characters fell to no token.
    """
    framed = _frame(card, tokenizer, messages, max_windows)
    if plain_too:
        _add_plain(framed, card, tokenizer, messages, max_windows)
    for index, message in enumerate(messages):
        unseen = _unseen(tokenizer, reveal(message.text) if plain_too else message.text)
        if unseen or not framed[index].coverage.total_tokens:
            framed[index] = _less(framed[index], max(1, unseen))
    return framed


def _add_plain(
    framed: list[Windowed],
    card: Card,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    max_windows: int,
) -> None:
    """Let each disguised text's plain form be judged with it."""
    words = tokenizer.spelt_together
    plain = [(index, normalise(message.text, words)) for index, message in enumerate(messages)]
    changed = [(index, text) for index, text in plain if text != messages[index].text]
    others = [replace(messages[index], text=text) for index, text in changed]
    for (index, _), other in zip(
        changed, _frame(card, tokenizer, others, max_windows), strict=True
    ):
        framed[index] = _joined(framed[index], other)


def _joined(first: Windowed, other: Windowed) -> Windowed:
    """The first form's windows, then those that only the other form has."""
    fresh = [window for window in other.windows if window not in first.windows]
    coverage = first.coverage
    if coverage.complete and (not other.coverage.complete or not coverage.total_tokens):
        coverage = other.coverage
    return Windowed(windows=(*first.windows, *fresh), coverage=coverage)


def _unseen(tokenizer: Tokenizer, text: str) -> int:
    """How many characters stand in runs that the tokenizer drops.

    A few together join emoji or set a direction; so many can carry a text.
    """
    runs = _INVISIBLE.findall(text)
    if not runs:
        return 0
    kept = zip(runs, tokenizer.encode(runs), strict=True)
    return sum(len(run) for run, tokens in kept if not tokens)


def _less(seen: Windowed, unseen: int) -> Windowed:
    """The same with so many tokens more that nobody saw."""
    coverage = seen.coverage
    return replace(seen, coverage=replace(coverage, total_tokens=coverage.total_tokens + unseen))


def _frame(
    card: Card, tokenizer: Tokenizer, messages: Sequence[Message], max_windows: int
) -> list[Windowed]:
    """The windows of each message as it came."""
    if card.template is not None:
        return [_chat(card, card.template, tokenizer, each, max_windows) for each in messages]
    texts = tokenizer.encode([message.text for message in messages])
    contexts = tokenizer.encode([_context(card, message) for message in messages])
    return [
        cut(text, context, card.window, max_windows=max_windows)
        for text, context in zip(texts, contexts, strict=True)
    ]


def _context(card: Card, message: Message) -> str:
    """The start of the prompt a completion answers; a token is rarely over 32 characters."""
    if message.kind is not Kind.COMPLETION:
        return ""
    return (message.prompt or "")[: card.window.context_length * 32]


def _chat(
    card: Card, template: ChatTemplate, tokenizer: Tokenizer, message: Message, max_windows: int
) -> Windowed:
    # The published templates strip each turn.
    context = _context(card, message).strip()
    prompt = _first_tokens(tokenizer, context, card.window.context_length)
    filled = _Filled(
        tokenizer=tokenizer,
        shape=template.shape(prompt, completion=message.kind is Kind.COMPLETION),
        text=message.text.strip(),
        prompt=prompt,
        room=card.window.max_length,
    )
    return filled.windows(card.window.overlap, max_windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """One message in its template, whole or piece by piece."""

    tokenizer: Tokenizer
    shape: str
    text: str
    prompt: str
    room: int

    def windows(self, overlap: int, limit: int) -> Windowed:
        spans = self.tokenizer.spans(self.text)
        whole = self._encode(self.text)
        if len(whole) <= self.room:
            return _windowed([tuple(whole)], [(0, len(spans))], len(spans))
        free = max(1, self.room - _SLACK - len(self._encode("")))
        starts = spread(len(spans), free, min(overlap, free - 1), limit)
        fitted = [self._fit(spans, start, min(start + free, len(spans))) for start in starts]
        ranges = [(start, end) for start, (end, _) in zip(starts, fitted, strict=True)]
        return _windowed([window for _, window in fitted], ranges, len(spans))

    def _fit(
        self, spans: Sequence[tuple[int, int]], start: int, end: int
    ) -> tuple[int, tuple[int, ...]]:
        """The longest piece from a token that fits: where it ends, and its window."""
        while True:
            piece = self.text[spans[start][0] : spans[end - 1][1]] if end > start else ""
            ids = self._encode(piece)
            if len(ids) <= self.room or end <= start:
                return end, tuple(ids[-self.room :])
            end = max(start, end - (len(ids) - self.room))

    def _encode(self, piece: str) -> list[int]:
        """Ids of the filled template; only the template's own special tokens are special."""
        ids: list[int] = []
        for part in _split(self.tokenizer, self.shape):
            if part in self.tokenizer.special_ids:
                ids.append(self.tokenizer.special_ids[part])
            elif part:
                ids.extend(
                    self.tokenizer.encode([fill(part, {TEXT: piece, PROMPT: self.prompt})])[0]
                )
        return ids


def _windowed(
    windows: Sequence[tuple[int, ...]], ranges: Sequence[tuple[int, int]], total: int
) -> Windowed:
    coverage = Coverage(scanned_tokens=covered(ranges, total), total_tokens=total)
    return Windowed(windows=tuple(windows), coverage=coverage)


def _split(tokenizer: Tokenizer, shape: str) -> list[str]:
    names = sorted(tokenizer.special_ids, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, names))})", shape) if names else [shape]


def _first_tokens(tokenizer: Tokenizer, text: str, limit: int) -> str:
    spans = tokenizer.spans(text)
    return text if len(spans) <= limit else text[: spans[limit - 1][1] if limit else 0]
