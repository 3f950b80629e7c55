"""What tokenising costs a message, by itself: the same texts, tokenizer and batch size.

python -m loadtest.bench.tokenising MESSAGES ROWS
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from loadtest.bench import messages
from pipeline import scoring, settings, wiring
from pipeline.events import Message
from pipeline.scoring import Guard
from pipeline.settings import Settings


def cost_us(given: Settings, count: int, rows: int) -> float:
    """Microseconds of CPU a message, all threads together, `rows` messages at a time."""
    (guard,) = wiring.load_guards(given.guards)
    texts = messages.make(count)
    _tokenise(given, guard, texts[: max(rows, count // 20)], rows)
    began_s = time.process_time()
    _tokenise(given, guard, texts, rows)
    return 1e6 * (time.process_time() - began_s) / count


def _tokenise(given: Settings, guard: Guard, texts: Sequence[Message], rows: int) -> None:
    """Exactly what the worker's scorer does before it plans its calls."""
    for start in range(0, len(texts), rows):
        scoring._frame_all(guard, texts[start : start + rows], given.guards.max_windows)


if __name__ == "__main__":
    print(cost_us(settings.load(), int(sys.argv[1]), int(sys.argv[2])))
