"""What the k-th message of a workload is: the same for a seed, whoever makes it."""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from loadtest.workload import Keys, Texts, Workload
from pipeline import samples
from pipeline.events import Kind, Message

_P95_SIGMAS: Final = 1.6449
"""How many standard deviations the 95th percentile of a normal lies above its median."""

_WORDS: Final = [
    "the",
    "a",
    "river",
    "house",
    "morning",
    "question",
    "about",
    "small",
    "green",
    "paper",
    "city",
    "answer",
    "water",
    "garden",
    "train",
    "letter",
    "number",
    "winter",
    "people",
    "story",
    "music",
    "between",
    "under",
    "light",
    "bread",
    "window",
    "again",
    "school",
    "market",
    "yellow",
    "engine",
    "report",
    "table",
    "quiet",
    "summer",
    "write",
    "carry",
    "read",
    "think",
    "long",
]
_BASE_WORDS: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One message to send; a malformed one is cut short once it is encoded."""

    message: Message
    malformed: bool


class Recipe:
    """Makes messages by number; not for use from threads."""

    def __init__(self, workload: Workload) -> None:
        self._seed = workload.seed
        self._mix = workload.messages
        self._texts = _texts(workload.messages.texts)
        self._keys = _Conversations(workload.keys)
        self._tenants = list(workload.tenants)
        self._shares = list(accumulate(workload.tenants.values()))

    def piece(self, number: int, message_id: str) -> Piece:
        """The message of a number."""
        # One generator a message: any process can make any message on its own.
        chance = random.Random(self._seed * 1_000_003 + number)  # noqa: S311
        kind = Kind.PROMPT if chance.random() < self._mix.prompts else Kind.COMPLETION
        message = Message(
            message_id=message_id,
            kind=kind,
            text=self._texts.pick(kind, chance),
            conversation_id=self._keys.pick(chance),
            tenant=self._tenant(chance),
        )
        return Piece(message=message, malformed=chance.random() < self._mix.malformed)

    def _tenant(self, chance: random.Random) -> str:
        at = bisect.bisect_right(self._shares, chance.random() * self._shares[-1])
        return self._tenants[min(at, len(self._tenants) - 1)]


def cut(value: bytes, number: int) -> bytes:
    """A value cut short, so that no decoder takes it."""
    return value[: number % max(1, len(value) - 1)]


class _Samples:
    """Texts of the shipped samples, but for blank ones, which are dead letters by design."""

    def __init__(self) -> None:
        self._by_kind: dict[Kind, Sequence[str]] = {
            kind: [m.text for m in samples.traffic() if m.kind is kind and m.text.strip()]
            for kind in Kind
        }

    def pick(self, kind: Kind, chance: random.Random) -> str:
        """A sample of a kind."""
        return chance.choice(self._by_kind[kind])


class _Generated:
    """Harmless words, of log-normal length in characters."""

    def __init__(self, texts: Texts) -> None:
        chance = random.Random(0)  # noqa: S311 - the words are the same in every run
        self._base = " ".join(chance.choices(_WORDS, k=_BASE_WORDS))
        self._mu = math.log(texts.median_chars)
        self._sigma = math.log(texts.p95_chars / texts.median_chars) / _P95_SIGMAS
        self._max = texts.max_chars

    def pick(self, _kind: Kind, chance: random.Random) -> str:
        """A text of a random length; between 1 and `max_chars` characters."""
        length = max(1, min(self._max, round(chance.lognormvariate(self._mu, self._sigma))))
        start = self._base.find(" ", chance.randrange(len(self._base) // 2)) + 1
        text = self._base[start:] + " " + self._base * (length // len(self._base) + 1)
        return text[:length].rstrip() or "a"


def _texts(texts: Texts) -> _Samples | _Generated:
    return _Generated(texts) if texts.source == "generated" else _Samples()


class _Conversations:
    """Conversation ids, spread evenly or as Zipf's law has it; or none."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        weights = (1 / rank**keys.exponent for rank in range(1, keys.conversations + 1))
        self._sums = list(accumulate(weights)) if keys.distribution == "zipf" else []

    def pick(self, chance: random.Random) -> str | None:
        """A conversation id."""
        if self._keys.distribution == "none":
            return None
        if self._sums:
            return f"lt-{bisect.bisect_left(self._sums, chance.random() * self._sums[-1])}"
        return f"lt-{chance.randrange(self._keys.conversations)}"
