"""Writes chain heads down: at once when a chain begins or breaks off, else every few seconds.

A heads topic that is away delays no verdict: it is tried again in the
background, and readiness says so when that goes on.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from pipeline import chain_heads, codec, headers, metrics
from pipeline.audit_writer import ChainedLog
from pipeline.chain import ChainHead
from pipeline.errors import SluiceError
from pipeline.health import Health
from pipeline.ports import Clock, Outgoing, Publisher
from pipeline.signing import Signer

log = structlog.get_logger(__name__)

CHECK: Final = "chain-heads"
"""The readiness check that says whether heads are written down."""

_TOLERATED_S: Final = 30.0


class Checkpoints:
    """Keeps a topic of chain heads up with the chains of one writer."""

    def __init__(
        self,
        topic: str,
        *,
        publisher: Publisher,
        schemas: codec.Schemas,
        signer: Signer | None,
        health: Health,
        clock: Clock,
        every_s: float,
    ) -> None:
        self._topic = topic
        self._publisher = publisher
        self._schemas = schemas
        self._signer = signer
        self._health = health
        self._clock = clock
        self._every_s = every_s
        self._due = asyncio.Event()
        self._written: dict[str, ChainHead] = {}
        self._behind_since_s: float | None = None
        health.set(CHECK, ok=True, detail="nothing to write down yet")

    def hurry(self) -> None:
        """Write the next heads at once."""
        self._due.set()

    async def run(self, chains: ChainedLog) -> None:
        """Write heads until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            if not await self.write(chains):
                await asyncio.sleep(min(1.0, self._every_s))

    async def write(self, chains: ChainedLog) -> bool:
        """Write what changed; False when that failed, which is logged and counted."""
        heads = chains.heads()
        metrics.AUDIT_CHAINS.set(sum(head.state == "open" for head in heads))
        changed = [head for head in heads if head != self._written.get(head.chain)]
        self._measure(behind=bool(changed))
        try:
            if changed:
                await self._publisher.publish([self._record(head) for head in changed])
        except SluiceError as error:
            self._failed(error)
            return False
        self._note(changed, chains)
        self._measure(behind=False)
        return True

    def _record(self, head: ChainHead) -> Outgoing:
        at = self._clock.now()
        value = chain_heads.encode(head, at, self._signer, self._schemas)
        stamped = headers.event(
            id=f"{head.chain}@{head.tip.sequence}",
            type="moderation.chain-head.v1",
            source=f"sluice/{head.worker_id}",
            time=at,
        )
        return Outgoing(topic=self._topic, key=head.chain.encode(), value=value, headers=stamped)

    def _note(self, written: list[ChainHead], chains: ChainedLog) -> None:
        self._written |= {head.chain: head for head in written}
        ended = [head.chain for head in written if head.state != "open"]
        chains.forget(ended)
        for chain in ended:
            del self._written[chain]

    def _measure(self, *, behind: bool) -> None:
        now_s = self._clock.monotonic()
        if not behind:
            self._behind_since_s = None
            self._health.set(CHECK, ok=True, detail="written down")
        elif self._behind_since_s is None:
            self._behind_since_s = now_s
        since_s = self._behind_since_s
        metrics.CHAIN_HEAD_AGE_SECONDS.set(0 if since_s is None else now_s - since_s)

    def _failed(self, error: SluiceError) -> None:
        metrics.CHAIN_HEAD_ERRORS.inc()
        self._measure(behind=True)
        log.warning("chain-heads-not-written", error=str(error))
        waited_s = self._clock.monotonic() - (self._behind_since_s or 0.0)
        if waited_s > _TOLERATED_S:
            self._health.set(
                CHECK, ok=False, detail=f"not written down for {waited_s:.0f} s: {error}"
            )
