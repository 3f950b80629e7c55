"""The lean consumer hands over and commits many at a time, within bounds, while Faust is Faust."""

from __future__ import annotations

import hashlib
import inspect
import math
import time
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.drivers import by_url
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types.tuples import TP
from mode.threads import QueueServiceThread, ServiceThread

from pipeline import lean_client, lean_consumer
from pipeline.lean_client import LeanClient
from pipeline.lean_consumer import Fetched, LeanConsumer, LeanTransport
from pipeline.pace import Pace

WRITTEN_AGAINST = {
    BaseConsumer._drain_messages: "44a2500309e83c63",
    BaseConsumer._wait_next_records: "6218e1969a636b3f",
    BaseConsumer.getmany: "4b168d84882a70d6",
    BaseConsumer._new_offset: "1d2c7ea89a7ad4f1",
    BaseConsumer._commit_tps: "a20e230b05ae8b15",
    BaseConsumer._commit_offsets: "1a69799041188441",
    BaseConsumer._filter_committable_offsets: "dc5e9baf5d994485",
    BaseConsumer._filter_tps_with_pending_acks: "f6f9239774234e7e",
    BaseConsumer._should_commit: "5ce941793947ad42",
    BaseConsumer.wait_empty: "e4662fe24f094819",
    BaseConsumer._clean_unacked_messages: "11be2587e71c9162",
    BaseConsumer.on_partitions_revoked: "d04b7ae72c6fc206",
    BaseConsumer.on_buffer_full: "c8961679e0bcdce5",
    BaseConsumer.on_buffer_drop: "4b57e8a418d5ad9c",
    AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc3e6f6cad",
    AIOKafkaConsumerThread.seek_to_committed: "775ab0adc4b052ab",
    AIOKafkaConsumerThread.getmany: "26fc5fc9f3b667e1",
    AIOKafkaConsumerThread._fetch_records: "39a2c6c79fc1455a",
    AIOKafkaConsumerThread.on_start: "38b4e8bd1e10723a",
    AIOKafkaConsumerThread.on_thread_stop: "8dfc004e258b6c25",
    ServiceThread.__init__: "82979878990cdff5",
    ServiceThread.start: "f11841038a033a05",
    ServiceThread.stop: "32d026539c3665b2",
    ServiceThread._serve: "67809eae09573ac7",
    ServiceThread._shutdown_thread: "d7377862e73421a2",
    ServiceThread._gather_remaining_tasks: "6f65b92dd1012485",
    QueueServiceThread.call_thread: "479edda75b54734b",
    Fetcher._get_actions_per_node: "1dab2cf937d165d0",
    BaseConsumer.perform_seek: "0e8c130ff4b0afd8",
    AIOKafkaConsumer.seek_to_committed: "f6cd85c8b70a4ccf",
}
ONE, TWO = TP("prompts", 0), TP("prompts", 1)


@pytest.mark.parametrize("method", WRITTEN_AGAINST, ids=lambda method: method.__qualname__)
def test_faust_is_the_one_it_was_written_against(method: Any) -> None:
    """A changed method of Faust must be read again before the overrides are kept."""
    digest = hashlib.sha256(inspect.getsource(method).encode()).hexdigest()
    assert digest[:16] == WRITTEN_AGAINST[method]


def test_our_scheme_leads_to_the_lean_transport() -> None:
    """Broker addresses of the app are served by it."""
    assert by_url(f"{lean_consumer.SCHEME}://localhost") is LeanTransport


class _Queue:
    def __init__(self) -> None:
        self._queue: deque[Fetched] = deque()

    def force_put_nowait(self, fetched: Fetched) -> None:
        self._queue.append(fetched)


class _Consumer(LeanConsumer):
    """A lean consumer around scripted fetches, without a broker."""

    should_stop = False

    def __init__(self, *fetches: dict[TP, list[Any]], bound: int = 10) -> None:
        self.queue = _Queue()
        self.fetches = list(fetches)
        self.asked: list[tuple[set[TP], float]] = []
        self.flow_active = True
        self._pace = Pace(ahead_s=math.inf)
        self.gathers: list[float] = []
        self._thread = SimpleNamespace(gather=self.gathers.append, looked=lambda: None)
        channel = SimpleNamespace(queue=self.queue)
        self.app = SimpleNamespace(
            flow_control=SimpleNamespace(is_active=lambda: True),
            topics=SimpleNamespace(_topic_name_index={"prompts": [channel]}),
            conf=SimpleNamespace(stream_buffer_maxsize=bound),
            monitor=SimpleNamespace(track_tp_end_offset=lambda *_: None),
            consumer_generation_id=3,
            in_recovery=False,
        )
        self.assigned = {ONE, TWO}
        self._active_partitions = {ONE, TWO}
        self._buffered_partitions = set()
        self._read_offset = defaultdict(lambda: None)
        self._committed_offset = defaultdict(lambda: None)
        self._acked = defaultdict(list)
        self._unacked_messages = WeakSet()

    def assignment(self) -> set[TP]:
        """Both partitions, until the test says otherwise."""
        return self.assigned

    def highwater(self, _tp: TP) -> int:
        """The log's end."""
        return 1000

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's
        active = set(self._active_partitions)
        self.asked.append((active, timeout))
        fetched = self.fetches.pop(0) if self.fetches else {}
        # The client's own class of partitions, which Faust refuses.
        return {TopicPartition(*tp): part for tp, part in fetched.items() if tp in active}, active

    async def fetch(self) -> None:
        """One turn of Faust's fetch loop."""
        async for _ in self.getmany(timeout=1.0):
            pytest.fail("Faust's loop would hand it over a second time")

    def handed(self) -> list[tuple[TP, list[int]]]:
        """Partition and offsets of what waits on the channel."""
        return [(f.tp, [record.offset for record in f.records]) for f in self.queue._queue]


def records(*offsets: int, size_bytes: int = 1) -> list[Any]:
    """Records as aiokafka gives them."""
    return [SimpleNamespace(offset=offset, value=b"v" * size_bytes) for offset in offsets]


async def test_a_partitions_messages_are_handed_over_together() -> None:
    """One item a partition, in offset order, under the present assignment."""
    consumer = _Consumer({ONE: records(4, 5, 7), TWO: records(1)})
    await consumer.fetch()
    assert consumer.handed() == [(ONE, [4, 5, 7]), (TWO, [1])]
    assert all(isinstance(fetched.tp, TP) for fetched in consumer.queue._queue)
    assert {f.generation for f in consumer.queue._queue} == {3}
    assert dict(consumer._read_offset) == {ONE: 8, TWO: 2}


async def test_messages_gather_once_they_come_often_and_longer_where_much_is_under_way() -> None:
    """The first looks are free; then the broker gathers, the longer the more is unfinished."""
    fetches = [{ONE: records(offset)} for offset in range(4)]
    consumer = _Consumer(*fetches, bound=1000)
    consumer._pace = Pace(ahead_s=1.5 * lean_consumer.LOOK_EVERY_S)
    for _ in range(3):
        await consumer.fetch()
    assert consumer.gathers == [0.0, 0.0, lean_consumer.LOOK_EVERY_S]
    under_way = _fetched(consumer, *range(lean_consumer.BUSY_MESSAGES))
    await consumer.fetch()
    assert under_way.refcount
    assert consumer.gathers[-1] == lean_consumer.BUSY_LOOK_EVERY_S


@pytest.mark.parametrize(
    ("for_s", "fetch"),
    [(0.005, (lean_client.GATHER_BYTES, 5)), (0.0, (1, lean_client.FETCH_WAIT_MS))],
)
def test_no_fetch_waits_long_for_many_bytes(for_s: float, fetch: tuple[int, int]) -> None:
    """Messages gather for a few milliseconds, or the first ends the wait."""
    fetcher = SimpleNamespace(_fetch_min_bytes=7, _fetch_max_wait_ms=7)
    client = SimpleNamespace(_ensure_consumer=lambda: SimpleNamespace(_fetcher=fetcher))
    LeanClient.gather(client, for_s)
    assert (fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms) == fetch


async def test_what_several_brokers_return_is_spread_out_here() -> None:
    """Each broker gathers by itself, so that looks still come oftener than they should."""
    consumer = _Consumer({ONE: records(0)})
    consumer._pace.spend(time.monotonic(), 1.0)
    consumer._pace._ahead_s = 1.0 - lean_consumer.SEVERAL_BROKERS_S - 0.03
    began = time.monotonic()
    await consumer.fetch()
    assert time.monotonic() - began > 0.02


async def test_what_lies_before_a_seek_is_dropped() -> None:
    """A fetch that was under way hands over nothing that was read before."""
    consumer = _Consumer({ONE: records(4, 5, 6)}, {ONE: records(2, 3)})
    consumer._read_offset[ONE] = 5
    await consumer.fetch()
    await consumer.fetch()
    assert consumer.handed() == [(ONE, [5, 6])]


class _Client:
    """aiokafka's consumer, as far as seeking goes; partitions hold offsets 3 to 9."""

    def __init__(self, committed: dict[TP, int | None], *, fails: bool = False) -> None:
        self.committed = committed
        self.fails = fails
        # Where the last fetch ended, before anybody seeks.
        self.at: dict[TP, int] = dict.fromkeys(committed, 7)
        self.commits: list[dict[TP, int]] = []

    async def seek_to_committed(self) -> dict[TP, int | None]:
        """As in the pinned release: only what was committed above 0."""
        self.at |= {tp: offset for tp, offset in self.committed.items() if offset}
        return dict(self.committed)

    async def beginning_offsets(self, asked: list[TP]) -> dict[TP, int]:
        """The log's start."""
        return dict.fromkeys(asked, 3)

    async def end_offsets(self, asked: list[TP]) -> dict[TP, int]:
        """The log's end."""
        return dict.fromkeys(asked, 10)

    async def commit(self, offsets: dict[TP, int]) -> None:
        """Kept, unless the group has moved on."""
        if self.fails:
            raise RuntimeError
        self.commits.append(offsets)

    def seek(self, tp: TP, offset: int) -> None:
        """Read on from there."""
        self.at[tp] = offset


class _Lean(LeanClient):
    """The client's seeking, without a broker."""

    def __init__(self, client: _Client, start_from: str) -> None:
        self.client = client
        conf = SimpleNamespace(consumer_auto_offset_reset=start_from)
        self.app = SimpleNamespace(conf=conf)
        self.log = SimpleNamespace(warning=lambda *_: None)

    def _ensure_consumer(self) -> Any:
        return self.client

    async def call_thread(self, fun: Any, *args: Any, **options: Any) -> Any:
        """At once."""
        return await fun(*args, **options)


@pytest.mark.parametrize(("start_from", "begins"), [("earliest", 3), ("latest", 10)])
async def test_every_partition_is_read_from_where_the_group_goes_on(
    start_from: str, begins: int
) -> None:
    """Also where nothing was committed, or 0: what a rebalance let go of is read again."""
    three = TP("prompts", 2)
    client = _Client({ONE: 5, TWO: 0, three: None})
    found = await _Lean(client, start_from).seek_to_committed()
    assert client.at == found == {ONE: 5, TWO: 0, three: begins}
    assert client.commits == [{three: begins}]


async def test_a_beginning_that_cannot_be_committed_is_read_from_all_the_same() -> None:
    """A rebalance may refuse the commit; it seeks again."""
    client = _Client({ONE: None}, fails=True)
    assert await _Lean(client, "earliest").seek_to_committed() == {ONE: 3}
    assert client.at == {ONE: 3}


async def test_nothing_is_handed_over_while_the_flow_is_stopped() -> None:
    """A rebalance is under way: partitions are read again from what was committed."""
    sought: list[bool] = []

    class Stopped(_Consumer):
        async def perform_seek(self) -> None:
            sought.append(True)

    consumer = Stopped({ONE: records(1)})
    consumer.flow_active = False
    await consumer.fetch()
    assert (consumer.handed(), sought) == ([], [True])


@pytest.mark.parametrize("fetch", [records(*range(10)), records(0, size_bytes=33 * 2**20)],
                         ids=["messages", "bytes"])  # fmt: skip
async def test_a_full_channel_pauses_its_partition_until_most_is_taken(fetch: list[Any]) -> None:
    """Memory stays bounded, however many or however large the messages are."""
    consumer = _Consumer({ONE: fetch})
    await consumer.fetch()
    await consumer.fetch()
    assert consumer.asked[-1] == ({TWO}, lean_consumer.PAUSED_S)
    consumer.queue._queue.clear()
    await consumer.fetch()
    assert consumer.asked[-1] == ({ONE, TWO}, 1.0)


async def test_a_full_partition_that_was_given_away_is_not_asked_for_again() -> None:
    """What drained after a rebalance took it belongs to another worker."""
    consumer = _Consumer({ONE: records(*range(10))})
    await consumer.fetch()
    consumer.assigned = {TWO}
    consumer.queue._queue.clear()
    await consumer.fetch()
    assert consumer.asked[-1] == ({TWO}, 1.0)


async def test_what_was_fetched_for_an_assignment_that_ended_meanwhile_is_dropped() -> None:
    """The new one is read from what was committed, not from where the old one stood."""
    consumer = _Consumer({ONE: records(8)})
    consumer.app.flow_control = SimpleNamespace(is_active=lambda: False, acquire=lambda: None)
    consumer.suspend_flow = SimpleNamespace(wait=lambda: None)

    async def rebalanced(*_: Any) -> None:
        consumer.app.consumer_generation_id += 1

    consumer.wait_first = rebalanced
    await consumer.fetch()
    assert consumer.handed() == []
    assert consumer._read_offset[ONE] is None


def _fetched(consumer: _Consumer, *offsets: int) -> Fetched:
    fetched = Fetched(consumer, ONE, 3, records(*offsets))
    fetched.track()
    return fetched


def test_what_is_acknowledged_last_is_committed() -> None:
    """The ledger acknowledges in order, so gaps in the offsets (compaction) do not matter."""
    consumer = _Consumer()
    fetched = _fetched(consumer, 3, 5, 9)
    assert consumer._filter_committable_offsets([ONE]) == {}
    fetched.acknowledge(3)
    fetched.acknowledge(5)
    assert consumer._filter_committable_offsets(consumer._filter_tps_with_pending_acks()) == {
        ONE: 6
    }
    consumer._committed_offset[ONE] = 6
    assert consumer._filter_committable_offsets([ONE]) == {}


def test_a_rebalance_waits_until_each_message_is_acknowledged_or_let_go() -> None:
    """Faust's wait before it gives a partition away ends with the last of them."""
    consumer = _Consumer()
    fetched = _fetched(consumer, 0, 1, 2)
    fetched.acknowledge(0)
    fetched.forget(1)
    consumer._clean_unacked_messages()
    assert set(consumer.unacked) == {fetched}
    fetched.forget(2)
    assert set(consumer.unacked) == set()
