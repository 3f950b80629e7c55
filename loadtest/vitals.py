"""Lag, CPU, memory and Triton's statistics over time: one sample every second."""

from __future__ import annotations

import asyncio
import http.client
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import psutil

from loadtest import scrape
from loadtest.rows import OBSERVER, Usage, Vitals
from loadtest.scrape import Pages, Values
from pipeline.adapters.kafka import KafkaReader
from pipeline.settings import Settings

EVERY_S: Final = 1.0
_TIMEOUT_S: Final = 2.0
_SECRET: Final = re.compile(r"(?<=//)[^?]*@|\?.*", re.DOTALL)
"""Of an address: user and password, and a query, which may hold a token."""


class Watch:
    """Looks at processes, metrics pages and the consumer group."""

    def __init__(
        self,
        settings: Settings,
        *,
        triton_urls: tuple[str, ...],
        worker_urls: tuple[str, ...],
        pids: Callable[[], Mapping[str, int]],
    ) -> None:
        self._settings = settings
        self._triton_urls = triton_urls
        self._worker_urls = worker_urls
        self._pids = pids
        self.samples: list[Vitals] = []

    async def run(self) -> None:
        """Take a sample every second until cancelled."""
        async with KafkaReader(self._settings.kafka) as reader:
            due_s = time.monotonic()
            while True:
                late_ms = 1000 * (time.monotonic() - due_s)
                self.samples.append(await self._look(reader, late_ms))
                due_s = max(due_s + EVERY_S, time.monotonic())
                await asyncio.sleep(due_s - time.monotonic())

    async def once(self) -> Vitals:
        """One sample now, kept with the others."""
        async with KafkaReader(self._settings.kafka) as reader:
            self.samples.append(await self._look(reader, 0.0))
        return self.samples[-1]

    @property
    def silent(self) -> list[str]:
        """The addresses that gave no page of metrics in any sample, without what may be secret."""
        pages = [page for look in self.samples for page in (look.triton, look.worker) if page]
        heard = {url for page in pages for url in page}
        urls = (*self._triton_urls, *self._worker_urls)
        return [_SECRET.sub("", url) for url in urls if url not in heard]

    async def _look(self, reader: KafkaReader, late_ms: float) -> Vitals:
        at_ns = time.monotonic_ns()
        usage = {
            name: used
            for name, pid in self._pids().items()
            if (used := usage_of(pid, alone=name == OBSERVER)) is not None
        }
        return Vitals(
            at_ns=at_ns,
            late_ms=late_ms,
            lag=await self._lag(reader),
            triton=await self._fetched(self._triton_urls),
            worker=await self._fetched(self._worker_urls),
            usage=usage,
        )

    async def _fetched(self, urls: tuple[str, ...]) -> Pages | None:
        return await asyncio.to_thread(fetch, urls) if urls else None

    async def _lag(self, reader: KafkaReader) -> int | None:
        """Messages of both input topics behind the group's commits."""
        topics, lag = self._settings.topics, 0
        try:
            for topic in (topics.prompts, topics.completions):
                committed = await reader.committed(self._settings.kafka.group, topic)
                for part in await reader.bounds(topic):
                    lag += part.end - max(part.start, committed.get(part.partition, 0))
        except Exception:  # aiokafka's own, when the group has no coordinator yet: no lag known
            return None
        return lag


def usage_of(pid: int, *, alone: bool = False) -> Usage | None:
    """What a process uses, with its children unless `alone`; None when it is gone."""
    try:
        root = psutil.Process(pid)
        family = [root, *([] if alone else root.children(recursive=True))]
    except psutil.Error:
        return None
    cpu_s, rss_bytes = 0.0, 0
    for process in family:
        try:
            times = process.cpu_times()
            cpu_s += times.user + times.system
            rss_bytes += process.memory_info().rss
        except psutil.Error:
            continue
    return Usage(cpu_s=cpu_s, rss_bytes=rss_bytes)


def fetch(urls: Iterable[str]) -> Pages | None:
    """The samples of each address that gives a page of metrics; None when none does."""
    found: dict[str, Values] = {}
    for url in urls:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                text = answer.read().decode("utf-8", "replace")
            found[url] = scrape.parse(text)
        except (OSError, http.client.HTTPException, ValueError):
            continue  # nobody there, another protocol, no address, or another page
    return found or None
