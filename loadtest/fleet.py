"""Several generator processes that begin together and are never left behind."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from loadtest import orders
from loadtest.histogram import Latencies
from loadtest.orders import Order, Told
from pipeline.errors import DependencyUnavailable, SluiceError

_HEAD_START_NS: Final = 200_000_000
"""From `go` to the first message: long enough for the word to reach everybody."""
_ENCODE_NS: Final = 150_000
"""Per message and generator on top, to encode it before the start, within the next bound."""
_LONGEST_HEAD_START_NS: Final = 5_000_000_000

_READY_WITHIN_S: Final = 60.0


class Fleet:
    """Generators of one run; an async context manager."""

    def __init__(self, given: Sequence[Order]) -> None:
        self._orders = list(given)
        self._processes: list[asyncio.subprocess.Process] = []
        self._latest: dict[int, Told] = {}

    async def __aenter__(self) -> Self:
        """Start them; return when all are connected. Raises DependencyUnavailable."""
        try:
            for order in self._orders:
                process = await _spawn()
                self._processes.append(process)
                _stdin(process).write(order.line())
            async with asyncio.timeout(_READY_WITHIN_S):
                for number in range(len(self._processes)):
                    await self._expect(number, "ready")
        except TimeoutError:
            await self.stop()
            raise DependencyUnavailable(
                "a generator did not connect to Kafka", remedy="See `sluice doctor`"
            ) from None
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop those that still run."""
        await self.stop()

    @property
    def pids(self) -> Mapping[str, int]:
        """Their process ids by name."""
        return {f"generator-{n + 1}": each.pid for n, each in enumerate(self._processes)}

    def total(self, name: str) -> int:
        """The sum of a count of `Told` over all generators, as last heard."""
        return sum(getattr(told, name) for told in self._latest.values())

    def late_ms(self) -> float:
        """How late the latest of them is, as last heard."""
        return max((told.late_ms for told in self._latest.values()), default=0.0)

    async def run(self, messages: int) -> int:
        """Send everything; returns the start (monotonic ns) that schedules count from.

        Raises SluiceError when a generator fails; the others are stopped on exit.
        """
        encoding_ns = messages * _ENCODE_NS // max(1, len(self._processes))
        head_start_ns = min(_HEAD_START_NS + encoding_ns, _LONGEST_HEAD_START_NS)
        start_ns = time.monotonic_ns() + head_start_ns
        for process in self._processes:
            _stdin(process).write(f"go {start_ns}\n".encode("ascii"))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(len(self._processes)):
                    group.create_task(self._expect(number, "done"))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return start_ns

    def merged(self, name: str) -> Latencies:
        """The histogram `late` or `ack` of all generators together."""
        merged = Latencies()
        for told in self._latest.values():
            if encoded := getattr(told, name):
                merged.add(Latencies.decode(encoded))
        return merged

    def rows(self) -> Any:
        """A row for each message that was sent, by sequence number; none before they are done."""
        done = [number for number, told in self._latest.items() if told.event == "done"]
        return orders.load_rows([Path(self._orders[number].rows) for number in done])

    def halt(self) -> None:
        """Let them send no more; they still say what they did."""
        for process in self._processes:
            _stdin(process).close()

    async def stop(self) -> None:
        """Close their input, which ends them; kill what is left after two seconds."""
        self.halt()
        for process in self._processes:
            try:
                async with asyncio.timeout(2.0):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _expect(self, number: int, event: str) -> None:
        """Read what a generator says until it says `event`."""
        process = self._processes[number]
        assert process.stdout is not None
        while line := await process.stdout.readline():
            told = self._latest[number] = orders.told(line)
            if told.event == event:
                return
            if told.event == "failed":
                raise DependencyUnavailable(
                    f"generator-{number + 1} stopped: {told.error.rstrip('.')}",
                    remedy="Correct that, then run it again",
                )
        raise SluiceError(
            f"generator-{number + 1} ended before it was {event}", remedy="Run it again"
        )


async def _spawn() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtest.generator",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 22,
    )


def _stdin(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    assert process.stdin is not None
    return process.stdin
