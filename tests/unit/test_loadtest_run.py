"""A run that does not go as planned: stopped, failed, unwatched; and when it has settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pytest

from loadtest import fleet as fleets
from loadtest import orders, run
from loadtest.fleet import Fleet
from loadtest.histogram import Latencies
from loadtest.observer import Observer
from loadtest.orders import Order, Told
from loadtest.rows import FIELDS, ROW
from loadtest.run import Running, Target
from loadtest.workload import Workload, validated
from pipeline.errors import DependencyUnavailable, SluiceError
from pipeline.settings import Settings


class Generators:
    """Generators that send nothing; what they were told to send is remembered."""

    told: list[int]
    pids: Mapping[str, int] = {}
    on_run = staticmethod(lambda: None)

    def __init__(self, _: list[Order]) -> None:
        self.accepted = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def run(self, messages: int) -> int:
        """Say that one message was accepted, at 2."""
        self.told.append(messages)
        self.accepted = 1
        self.on_run()
        return 1

    def rows(self) -> Any:
        """A row for it."""
        return np.array([(0, 1, 1, 2, 0, 0, 0, False)] * self.accepted, dtype=ROW)

    def total(self, _: str) -> int:
        """Nothing was heard of them."""
        return 0

    def late_ms(self) -> float:
        """Nothing was heard of them."""
        return 0.0

    def merged(self, _: str) -> Latencies:
        """Nothing was heard of them."""
        return Latencies()

    def halt(self) -> None:
        """Do nothing: they do nothing."""


class Unseeing:
    """An observer to whom nothing comes, unless `check` is replaced."""

    unreadable = 0

    def __init__(self) -> None:
        self.answered: set[int] = set()
        self.policies: set[tuple[str, str, str]] = set()
        self.guards: set[tuple[str, str, str]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, *_: object) -> AsyncIterator[Self]:
        """One that was opened."""
        yield cls()

    def check(self) -> None:
        """Nothing is wrong."""

    def rows(self) -> Any:
        """None."""
        return np.zeros((0, len(FIELDS)), dtype=np.int64)


class Blind:
    """A watch that sees nothing."""

    samples: tuple[()] = ()
    silent: tuple[str, ...] = ()

    async def once(self) -> None:
        """See nothing."""

    async def run(self) -> None:
        """See nothing for ever."""
        await asyncio.Event().wait()


def workload(**change: Any) -> Workload:
    """Three prompts, and patience that no test would have."""
    load = {"mode": "rate", "rate_per_s": 10, "messages": 3}
    return validated({"question": "?", "settle_s": 3600, "load": load} | change, "test")


def running(given: Workload) -> Running:
    """A run that has not begun."""
    return Running(given, "test", Target(name="t", settings=Settings(), overrides={}))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each fleet was told to send, where there is neither Kafka nor process."""
    monkeypatch.setattr(Generators, "told", [], raising=False)
    monkeypatch.setattr(run, "_GRACE_S", 0.0)
    monkeypatch.setattr(run, "_POLL_S", 0.0)
    monkeypatch.setattr(run, "Fleet", Generators)
    monkeypatch.setattr(run, "Observer", Unseeing)
    monkeypatch.setattr(Running, "_watch", lambda *_: Blind())
    return Generators.told


async def test_a_stop_while_priming_ends_the_run(
    told: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for no outcome of what primed, sends nothing more, and is written all the same."""
    stopped = running(workload(prime_messages=5))
    monkeypatch.setattr(Generators, "on_run", staticmethod(stopped.stop))
    summary = await asyncio.wait_for(stopped.finish(tmp_path), 60)
    assert told == [5]
    assert (summary["interrupted"], summary["passed"]) == (True, False)
    assert (tmp_path / "report.html").is_file()


async def test_a_stop_while_priming_halts_the_generators(
    told: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would go on to the end of the priming."""
    stopped, halted = running(workload(prime_messages=5)), list[str]()
    monkeypatch.setattr(Generators, "halt", lambda _: halted.append(stopped.line()))
    monkeypatch.setattr(Generators, "on_run", staticmethod(stopped.stop))
    await asyncio.wait_for(stopped.finish(tmp_path), 60)
    assert len(halted) == 1
    assert "priming" in halted[0]
    assert "sent=0/5" in halted[0]


async def test_what_primed_is_not_counted_in_the_progress_of_the_run(
    told: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcomes would stand beside what the run has sent, which is nothing."""
    given = running(workload(prime_messages=5))
    monkeypatch.setattr(Unseeing, "check", lambda seeing: seeing.answered.add(0))
    await given._prime(tmp_path)
    assert told == [5]
    assert "connecting" in given.line()
    assert "sent=0/3 outcomes=0" in given.line()


async def test_a_stop_while_connecting_sends_nothing(told: list[int], tmp_path: Path) -> None:
    """Generators without their input would end before they were done, which is no failure."""
    stopped = running(workload())
    stopped.stop()
    summary = await asyncio.wait_for(stopped.finish(tmp_path), 60)
    assert told == []
    assert summary["invalid_because"][-1] == "it was interrupted"
    assert summary["pace"]["offered_per_s"] == 0


async def test_a_run_settles_once_every_accepted_message_has_an_outcome() -> None:
    """Neither a second outcome of one nor that of a message which was not accepted stands in."""
    rows = np.array([(n, 1, 1, 2 * (n < 2), 0, 0, n, False) for n in range(3)], dtype=ROW)
    fleet, observer = Generators([]), Unseeing()
    fleet.rows = lambda: rows  # type: ignore[method-assign]
    observer.answered = {0, 2}
    observer.check = lambda: observer.answered.add(1)  # type: ignore[method-assign]
    await running(workload())._settle(cast("Fleet", fleet), cast("Observer", observer))
    assert observer.answered == {0, 1, 2}


async def test_a_watch_that_ended_early_is_told(
    told: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of half a run would pass for those of the whole."""

    async def ends(_: Blind) -> None:
        raise OSError("no more")

    monkeypatch.setattr(Blind, "run", ends)
    monkeypatch.setattr(Blind, "silent", ("http://x",))
    monkeypatch.setattr(Generators, "rows", lambda _: np.zeros(0, dtype=ROW))
    warned = (await running(workload()).finish(tmp_path))["warnings"]
    assert "no metrics came from http://x: its figures are missing" in warned
    assert "samples of the stack ended early (OSError: no more)" in warned


class Process:
    """A generator that says some lines and ends; what it is told goes nowhere."""

    pid = 1

    def __init__(self, *said: Told) -> None:
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(b"".join(each.line() for each in said))
        self.stdout.feed_eof()
        self.stdin = self

    def write(self, _: bytes) -> None:
        """Listen to nobody."""

    def close(self) -> None:
        """Listen to nobody."""

    async def wait(self) -> int:
        """It has ended."""
        return 0


def spawned(monkeypatch: pytest.MonkeyPatch, folder: Path, *processes: Process) -> Fleet:
    """A fleet of these processes."""
    left = iter(processes)

    async def spawn() -> Process:
        return next(left)

    monkeypatch.setattr(fleets, "_spawn", spawn)
    return Fleet(
        [
            Order(
                run="ab12", workload={}, overrides={}, part=n, of=9, rows=str(folder / f"{n}.npy")
            )
            for n in range(len(processes))
        ]
    )


@pytest.mark.parametrize(
    ("last", "kind", "text"),
    [
        (
            Told(event="failed", error="Kafka takes 2,000 bytes. Send less"),
            DependencyUnavailable,
            "generator-1 stopped: Kafka takes 2,000 bytes. Send less. Correct that, then",
        ),
        (Told(event="progress"), SluiceError, "generator-1 ended before it was done. Run it"),
    ],
)
async def test_a_generator_that_fails_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, last: Told, kind: type[Exception], text: str
) -> None:
    """With a remedy, and not as a group of errors that says nothing to a user."""
    others = Process(Told(event="ready"), Told(event="done"))
    failing = Process(Told(event="ready"), last)
    async with spawned(monkeypatch, tmp_path, failing, others) as fleet:
        with pytest.raises(kind) as failed:
            await fleet.run(10)
    assert str(failed.value).startswith(text)


async def test_generators_that_were_told_nothing_have_no_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rows are there once a generator is done; a fleet that was stopped before has none."""
    ready, done = Told(event="ready"), Told(event="done")
    np.save(tmp_path / "1.npy", np.zeros(2, dtype=ROW))
    async with spawned(monkeypatch, tmp_path, Process(ready), Process(ready, done)) as fleet:
        assert len(fleet.rows()) == 0
        await fleet._expect(1, "done")
        assert len(fleet.rows()) == 2
    assert len(orders.load_rows([])) == 0
