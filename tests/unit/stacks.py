"""A stack in memory that says what it was made with, and fails when told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn, Self

from pipeline.embedded.process import EmbeddedFailed


class BrokenStack:
    """Stands in for EmbeddedStack: it logs, then `fails_at` raises EmbeddedFailed.

    `fails_at`: "start", "worker" or "ended".
    """

    def __init__(self, fails_at: str) -> None:
        """Nothing is made before it is called, as the class it stands in for is."""
        self.fails_at = fails_at
        self.given: dict[str, Any] = {}
        self.held: list[int] = []

    def __call__(self, _settings: object, **given: Any) -> Self:
        """Take the arguments of EmbeddedStack; `held` are the files it is to hold open."""
        self.given = given
        self.held = [os.fstat(each).st_ino for each in given.get("keep_open", ())]
        return self

    @property
    def log(self) -> Path:
        """What it writes when it starts."""
        return Path(self.given["data"]) / "kafka.log"

    async def __aenter__(self) -> Self:
        """Start to log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("what went wrong")
        self._reach("start")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing runs."""

    async def start_worker(self) -> None:
        """Start none."""
        self._reach("worker")

    async def ended(self) -> NoReturn:
        """End at once."""
        self._reach("ended")
        raise AssertionError("it was to fail before")

    def variables(self) -> dict[str, str]:
        """No address leads to it."""
        return {}

    def overrides(self) -> dict[str, Any]:
        """Nor setting."""
        return {}

    def _reach(self, stage: str) -> None:
        if stage == self.fails_at:
            raise EmbeddedFailed("Apache Kafka", "ended with status 1", remedy="Read its log")
