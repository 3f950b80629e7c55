"""Specification of the conveyor: bounded, greedy, drained within a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pipeline.conveyor import Conveyor, Limits


@dataclass(frozen=True, slots=True)
class Parcel:
    """An item with a number and a size."""

    number: int
    size_bytes: int = 1


@dataclass(slots=True)
class Belt:
    """A conveyor whose batches end only when the gate is open."""

    limits: Limits
    batches: list[list[int]] = field(default_factory=list)
    abandoned: list[int] = field(default_factory=list)
    crashes: list[BaseException] = field(default_factory=list)
    running: int = 0
    items: int = 0
    most_items: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fault: BaseException | None = None
    quick: Callable[[], bool] = lambda: False

    async def judge(self, batch: list[Parcel]) -> None:
        """Note the batch, then wait for the gate."""
        self.batches.append([parcel.number for parcel in batch])
        self.running += 1
        self.items += len(batch)
        self.most_items = max(self.most_items, self.items)
        try:
            await self.gate.wait()
            if self.fault:
                raise self.fault
        finally:
            self.running -= 1
            self.items -= len(batch)

    def conveyor(self) -> Conveyor[Parcel]:
        """A conveyor over this belt."""
        return Conveyor(
            self.judge,
            limits=self.limits,
            abandon=lambda parcel: self.abandoned.append(parcel.number),
            crash=self.crashes.append,
            quick=self.quick,
        )


def limits(**changed: float) -> Limits:
    """Six items in flight in batches of three, four waiting."""
    values = {"batch_messages": 3, "batch_bytes": 100,
              "messages_in_flight": 6, "bytes_in_flight": 10_000,
              "buffer_messages": 4, "buffer_bytes": 1000}  # fmt: skip
    return Limits(**(values | changed))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@asynccontextmanager
async def started(conveyor: Conveyor[Parcel]) -> AsyncIterator[asyncio.Task[None]]:
    """A conveyor that runs for the length of a block."""
    task = asyncio.create_task(conveyor.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_item_travels_once_in_order_within_the_limits() -> None:
    """Batches keep the order, their size and the number in flight."""
    belt = Belt(limits())
    belt.gate.set()
    conveyor = belt.conveyor()
    async with started(conveyor):
        for number in range(40):
            await conveyor.admit([Parcel(number)])
        await until(lambda: sum(map(len, belt.batches)) == 40)
    assert [number for batch in belt.batches for number in batch] == list(range(40))
    assert max(map(len, belt.batches)) <= 3
    assert belt.most_items <= 6


async def test_a_lone_item_does_not_wait_for_company() -> None:
    """An idle conveyor sends at once what it has."""
    belt = Belt(limits())
    conveyor = belt.conveyor()
    async with started(conveyor):
        await conveyor.admit([Parcel(1)])
        await until(lambda: belt.batches == [[1]])


async def test_bytes_in_flight_are_bounded_but_one_batch_always_leaves() -> None:
    """A batch's worth of room is kept; an idle lane takes whatever comes."""
    belt = Belt(limits(bytes_in_flight=150))
    conveyor = belt.conveyor()
    async with started(conveyor):
        await conveyor.admit([Parcel(1, 400)])
        await until(lambda: belt.batches == [[1]])
        await conveyor.admit([Parcel(2, 1)])
        for _ in range(20):
            await asyncio.sleep(0)
        assert belt.batches == [[1]]
        belt.gate.set()
        await until(lambda: belt.batches[1:] == [[2]])


async def test_a_batch_stays_under_its_bytes_but_one_item_always_fits() -> None:
    """A larger item than a batch may hold travels alone."""
    belt = Belt(limits(messages_in_flight=3, buffer_messages=9))
    belt.gate.set()
    conveyor = belt.conveyor()
    for parcel in (Parcel(1, 60), Parcel(2, 50), Parcel(3, 500), Parcel(4, 50), Parcel(5, 50)):
        await conveyor.admit([parcel])
    async with started(conveyor):
        await until(lambda: sum(map(len, belt.batches)) == 5)
    assert belt.batches == [[1], [2], [3], [4, 5]]


async def test_admit_waits_while_everything_is_full() -> None:
    """Two batches of three and four waiting: the eleventh item is held at the door."""
    belt = Belt(limits())
    conveyor = belt.conveyor()
    async with started(conveyor):
        admitted: list[int] = []

        async def feed() -> None:
            for number in range(12):
                await conveyor.admit([Parcel(number)])
                admitted.append(number)
                await asyncio.sleep(0)

        feeder = asyncio.create_task(feed())
        await until(lambda: belt.running == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not feeder.done()
        assert len(admitted) == sum(map(len, belt.batches)) + 4
        belt.gate.set()
        await until(feeder.done)
        await until(lambda: sum(map(len, belt.batches)) == 12)


async def test_admit_waits_while_the_buffer_holds_its_bytes() -> None:
    """Large items fill it before many do; one more than the bound fits."""
    belt = Belt(limits(buffer_messages=100, buffer_bytes=50))
    conveyor = belt.conveyor()
    feeder = asyncio.create_task(conveyor.admit(Parcel(n, 30) for n in range(5)))
    await asyncio.sleep(0)
    assert not feeder.done()
    belt.gate.set()
    async with started(conveyor):
        await feeder
        await until(lambda: sum(map(len, belt.batches)) == 5)
    assert belt.batches[0] == [0, 1]


async def test_a_fault_in_a_batch_crashes_once_and_abandons_nothing() -> None:
    """The error reaches `crash`; the batch stays as it is for redelivery."""
    belt = Belt(limits(), fault=ValueError("boom"))
    belt.gate.set()
    conveyor = belt.conveyor()
    async with started(conveyor):
        await conveyor.admit([Parcel(1)])
        await until(lambda: bool(belt.crashes))
    assert belt.crashes == [belt.fault]
    assert belt.abandoned == []


async def test_drain_lets_running_batches_end() -> None:
    """What is being judged is finished, what only waited is abandoned."""
    belt = Belt(limits(messages_in_flight=1, batch_messages=1))
    conveyor = belt.conveyor()
    async with started(conveyor):
        for number in range(3):
            await conveyor.admit([Parcel(number)])
        await until(lambda: belt.running == 1)
        asyncio.get_running_loop().call_later(0.02, belt.gate.set)
        await conveyor.drain(5.0)
    assert belt.batches == [[0]]
    assert belt.abandoned == [1, 2]
    assert belt.crashes == []


async def test_drain_cancels_and_abandons_at_the_deadline() -> None:
    """A batch that hangs does not hold a rebalance: its items are let go, once each."""
    belt = Belt(limits())
    conveyor = belt.conveyor()
    async with started(conveyor):
        for number in range(3):
            await conveyor.admit([Parcel(number)])
        await until(lambda: belt.running > 0)
        async with asyncio.timeout(5):
            await conveyor.drain(0.05)
    assert sorted(belt.abandoned) == [0, 1, 2]
    assert (belt.running, belt.crashes) == (0, [])


async def test_while_draining_nothing_is_taken_and_waiters_are_released() -> None:
    """An item at the door, or one that comes later, is abandoned."""
    belt = Belt(limits(buffer_messages=1))
    conveyor = belt.conveyor()
    await conveyor.admit([Parcel(1)])
    waiter = asyncio.create_task(conveyor.admit([Parcel(2)]))
    await asyncio.sleep(0)
    assert not waiter.done()
    await conveyor.drain(1.0)
    await waiter
    await conveyor.admit([Parcel(3)])
    assert belt.abandoned == [1, 2, 3]
    assert conveyor.draining


async def test_after_resume_items_travel_again() -> None:
    """A drain is not the end: slots and buffer are whole again."""
    belt = Belt(limits(messages_in_flight=3))
    conveyor = belt.conveyor()
    async with started(conveyor):
        await conveyor.admit([Parcel(1)])
        await until(lambda: belt.running == 1)
        await conveyor.drain(0.01)
        conveyor.resume()
        belt.gate.set()
        for number in (2, 3):
            await conveyor.admit([Parcel(number)])
            await until(lambda number=number: belt.batches[-1] == [number])  # type: ignore[misc]
    assert belt.batches == [[1], [2], [3]]


async def test_large_items_ride_apart_and_hold_up_nobody() -> None:
    """Large batches in flight leave all room to the small ones, which never share its batch."""
    belt = Belt(limits(large_bytes=10, messages_in_flight=2, batch_messages=1))
    conveyor = belt.conveyor()
    async with started(conveyor):
        for number, size_bytes in enumerate((10, 50, 1, 60, 9)):
            before = len(belt.batches)
            await conveyor.admit([Parcel(number, size_bytes)])
            if number != 3:  # the large lane has no more room
                await until(lambda before=before: len(belt.batches) > before)  # type: ignore[misc]
        assert belt.batches == [[0], [1], [2], [4]]
        belt.gate.set()
        await until(lambda: belt.batches[4:] == [[3]])


async def test_large_items_that_wait_are_abandoned_too() -> None:
    """A drain empties both lanes."""
    belt = Belt(limits(large_bytes=10, messages_in_flight=1, batch_messages=1))
    conveyor = belt.conveyor()
    async with started(conveyor):
        await conveyor.admit([Parcel(0, 20)])
        await until(lambda: belt.batches == [[0]])
        for number in (1, 2):
            await conveyor.admit([Parcel(number, 20)])
        belt.gate.set()
        await conveyor.drain(1.0)
    assert belt.batches == [[0]]
    assert belt.abandoned == [1, 2]


async def test_both_lanes_share_one_bound_on_what_waits() -> None:
    """Memory stays flat whatever the mix."""
    belt = Belt(limits(large_bytes=10))
    conveyor = belt.conveyor()
    for number in range(4):  # nothing runs: all of them wait
        await conveyor.admit([Parcel(number, 20 if number % 2 else 1)])
    waiting = asyncio.create_task(conveyor.admit([Parcel(4)]))
    await asyncio.sleep(0)
    assert not waiting.done()
    belt.gate.set()
    async with started(conveyor):
        await asyncio.wait_for(waiting, 5)


async def _sizes(belt: Belt, items: int) -> list[int]:
    """How large batches are, one at a time and everything there from the beginning."""
    belt.gate.set()
    conveyor = belt.conveyor()
    await conveyor.admit([Parcel(number) for number in range(items)])
    async with started(conveyor):
        await until(lambda: sum(map(len, belt.batches)) == items)
    return list(map(len, belt.batches))


async def test_batches_may_be_larger_while_what_judges_is_quick() -> None:
    """It is asked at each batch; without larger ones allowed nothing changes."""
    belt = Belt(limits(messages_in_flight=1, buffer_messages=50, quick_batch_messages=10))
    belt.quick = lambda: len(belt.batches) in {1, 2}
    assert await _sizes(belt, 29) == [3, 10, 10, 3, 3]
    belt = Belt(limits(messages_in_flight=1, buffer_messages=50))
    belt.quick = lambda: True
    assert await _sizes(belt, 7) == [3, 3, 1]
