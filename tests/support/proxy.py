"""A TCP proxy in front of a broker that resets connections in the middle of a produce.

It understands one thing of Kafka's protocol: where a request begins, and
which one it is (https://kafka.apache.org/protocol.html#protocol_messages).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from enum import Enum
from itertools import cycle
from types import TracebackType
from typing import Self

from pipeline.embedded.loopback import HOST, free_ports

_PRODUCE = 0
_HEAD_BYTES = 6  # the size (int32) and the kind of request (int16)


class Cut(Enum):
    """At which moment of a produce a connection is reset."""

    HALF_SENT = "half of the request has reached the broker"
    UNANSWERED = "the broker has the whole request, its answer is thrown away"


class Proxy:
    """Forwards to a port on loopback; an async context manager.

    `every`: each so many produce requests one is cut, the two ways in turn;
    0 cuts none.
    """

    def __init__(self, target_port: int) -> None:
        (self.port,) = free_ports(1)
        self.every = 0
        self.cuts = dict.fromkeys(Cut, 0)
        self._target_port = target_port
        self._ways: Iterator[Cut] = cycle(Cut)
        self._produced = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._connect(reader, writer)
        _reset(writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, broker = await asyncio.open_connection(HOST, self._target_port)
        answers = asyncio.create_task(_pour(upstream, writer))
        try:
            await self._forward(reader, broker, answers)
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            broker.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        broker: asyncio.StreamWriter,
        answers: asyncio.Task[None],
    ) -> None:
        """Pass requests on, until one is to be cut."""
        while True:
            head = await reader.readexactly(_HEAD_BYTES)
            size_bytes, kind = struct.unpack(">ih", head)
            body = await reader.readexactly(size_bytes + 4 - _HEAD_BYTES)
            cut = self._next_cut() if kind == _PRODUCE else None
            if cut is Cut.UNANSWERED:
                answers.cancel()
            broker.write(head + (body[: len(body) // 2] if cut is Cut.HALF_SENT else body))
            await broker.drain()
            if cut is not None:
                self.cuts[cut] += 1
                await asyncio.sleep(0.1)  # the broker reads, and writes what is whole
                return

    def _next_cut(self) -> Cut | None:
        self._produced += 1
        return next(self._ways) if self.every and self._produced % self.every == 0 else None


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Everything from the one to the other; the end of the one ends the other."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(65_536):
            sink.write(chunk)
            await sink.drain()
    sink.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a machine that lost the connection would."""
    if (connection := writer.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
