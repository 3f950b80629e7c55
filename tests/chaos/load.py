"""A steady load of numbered messages into both topics, through whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

from pipeline import codec, wiring
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.errors import SluiceError
from pipeline.events import Kind, Message
from pipeline.headers import Headers
from pipeline.ports import Outgoing
from pipeline.settings import Settings
from tests.support.places import MARKER
from tests.support.traffic import TEXTS

NUMBER: Final = "x-load-number"
"""The header that names an input of the load; a malformed one's ends with `MALFORMED`."""

MALFORMED: Final = b"!"
_CHUNKS_PER_S: Final = 10


class Load:
    """Publishes until it is stopped; an async context manager.

    Messages are numbered from 0; those below `sent` were acknowledged by the
    broker. Each `malformed_every`th cannot be decoded. Chunks are repeated
    until acknowledged, so that an input may be there twice.
    """

    def __init__(self, settings: Settings, *, per_s: float, malformed_every: int = 50) -> None:
        self.sent = 0
        self.per_s = per_s
        self.malformed_every = malformed_every
        self.paused = False
        self._settings = settings
        self._schemas = wiring.load_schemas()
        self._publisher: KafkaPublisher | None = None
        self._stopping = False

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, without waiting for a chunk that nobody acknowledges."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()

    async def stop(self) -> None:
        """End the load once the chunk at hand is acknowledged."""
        self._stopping = True
        await self._task

    async def reach(self, messages: int) -> None:
        """Return once so many messages are acknowledged."""
        while self.sent < messages and not self._task.done():
            await asyncio.sleep(0.02)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while not self._stopping:
            due_s = max(due_s + 1 / _CHUNKS_PER_S, loop.time() - 1.0)
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if not self.paused:
                await self._publish(max(1, round(self.per_s / _CHUNKS_PER_S)))

    async def _publish(self, count: int) -> None:
        """Publish the next messages, however often the broker goes away."""
        chunk = [self._record(number) for number in range(self.sent, self.sent + count)]
        while True:
            try:
                await (await self._connected()).publish(chunk)
            except SluiceError:
                await self._disconnect()  # a producer out of sequence never recovers
                await asyncio.sleep(0.2)
            else:
                self.sent += count
                return

    async def _connected(self) -> KafkaPublisher:
        if self._publisher is None:
            limit = self._settings.topics.max_message_bytes
            publisher = KafkaPublisher(self._settings.kafka, max_message_bytes=limit)
            self._publisher = await publisher.__aenter__()
        return self._publisher

    async def _disconnect(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await publisher.__aexit__(None, None, None)

    def _record(self, number: int) -> Outgoing:
        kind = Kind.COMPLETION if number % 4 == 0 else Kind.PROMPT
        message = Message(
            message_id=f"m-{number}",
            kind=kind,
            text=f"{TEXTS[number % len(TEXTS)]} {MARKER}",
            tenant="acme" if number % 5 == 0 else "",
            conversation_id=f"c-{number // 6}",
        )
        malformed = number % self.malformed_every == self.malformed_every - 1
        value = codec.encode_message(message, self._schemas)
        named = self._settings.topics
        return Outgoing(
            topic=named.completions if kind is Kind.COMPLETION else named.prompts,
            key=f"c-{number // 6}".encode(),
            value=value[: len(value) // 2] if malformed else value,
            headers=_named(number, malformed=malformed),
        )


def _named(number: int, *, malformed: bool) -> Headers:
    return ((NUMBER, str(number).encode() + (MALFORMED if malformed else b"")),)
