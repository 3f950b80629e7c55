"""The policy in force in a worker: chosen at its start, switched while it runs.

Before the first message is judged, the worker's own policy and its guards'
cards are in the policies topic, so that whatever a verdict names by digest can
be had again. Then it follows the topic and switches between two messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import stamina
import structlog

from pipeline import codec, metrics, policy_history
from pipeline.adapters.kafka import KafkaReader, Record
from pipeline.errors import Misconfigured, Rejected, Retryable
from pipeline.health import Health
from pipeline.policy import Policy
from pipeline.policy_history import History, Placed, PolicyRecord
from pipeline.ports import Outgoing, Publisher
from pipeline.settings import KafkaSettings

log = structlog.get_logger(__name__)

QUIET_MS: Final = 1000
"""Policies change seldom: one fetch a second while nothing comes."""


async def read_all(
    reader: KafkaReader,
    topic: str,
    history: History,
    schemas: codec.Schemas,
    refused: Callable[[int, str], None],
) -> int:
    """Feed the history with all that the topic holds; returns the offset to go on from.

    `refused` hears the offset of each record that cannot be used, and why.
    """
    bounds = await reader.bounds(topic)
    async for record in reader.read(topic, bounds):
        take(record, history, schemas, refused)
    return bounds[0].end


def take(
    record: Record,
    history: History,
    schemas: codec.Schemas,
    refused: Callable[[int, str], None],
) -> None:
    """Feed the history with one record as read; raises nothing."""
    try:
        history.add(policy_history.decode(record.value or b"", schemas), record.offset)
    except (Misconfigured, Rejected) as error:
        refused(record.offset, str(error))


def outgoing(topic: str, record: PolicyRecord, schemas: codec.Schemas) -> Outgoing:
    """A record as it goes to the policies topic."""
    value = policy_history.encode(record, schemas)
    return Outgoing(topic=topic, key=record.key, value=value, headers=())


class PolicyFeed:
    """Which policy judges now; `current` is asked once a message.

    `own` is the file's policy, in force until one is activated in the topic;
    with `follow` off the topic only keeps the record.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        own: Policy,
        check: Callable[[Policy], None],
        schemas: codec.Schemas,
        health: Health,
        follow: bool,
        on_switch: Callable[[Policy], None] = lambda _policy: None,
    ) -> None:
        """`on_switch` hears of each policy that takes another's place."""
        self._settings = settings
        self._on_switch = on_switch
        self._topic = topic
        self._own = own
        self._schemas = schemas
        self._health = health
        self._follow = follow
        self._history = History(check)
        self._current = own
        self._next = 0

    def current(self) -> Policy:
        """The policy in force."""
        return self._current

    async def begin(self, publisher: Publisher, documents: Sequence[PolicyRecord]) -> None:
        """Publish the documents that the topic lacks; put the right policy in force.

        Warns where that is another than the file's.
        """
        async with KafkaReader(self._settings) as reader:
            self._next = await read_all(
                reader, self._topic, self._history, self._schemas, self._refused
            )
        missing = [each for each in documents if not self._history.document(each.digest)]
        await publisher.publish([outgoing(self._topic, each, self._schemas) for each in missing])
        self._choose()
        self._tell_of_unused_file()

    async def watch(self) -> None:
        """Follow the topic for ever; switch when another policy comes into force."""
        async for attempt in stamina.retry_context(
            on=Retryable, attempts=None, timeout=None, wait_max=5.0
        ):
            with attempt:
                async with KafkaReader(self._settings, wait_ms=QUIET_MS, again=True) as reader:
                    async for record in reader.follow({(self._topic, 0): self._next}):
                        take(record, self._history, self._schemas, self._refused)
                        self._next = record.offset + 1
                        self._choose()

    def _choose(self) -> None:
        placed = self._history.active if self._follow else None
        chosen = self._history.policy(placed.record.digest) if placed else None
        self._put_in_force(chosen or self._own, placed)

    def _put_in_force(self, policy: Policy, placed: Placed | None) -> None:
        ref, before = policy.ref, self._current.ref
        self._current = policy
        origin = f"offset {placed.offset} of {self._topic}" if placed else "the file"
        self._health.set("policy", ok=True, detail=f"{ref.id} {ref.version}, by {origin}")
        metrics.POLICY.info({"id": ref.id, "version": ref.version, "digest": ref.digest})
        if ref.digest == before.digest:
            return
        metrics.POLICY_SWITCHES.inc()
        log.info(
            "policy-in-force",
            id=ref.id,
            version=ref.version,
            digest=ref.digest,
            instead_of=before.digest,
            offset=placed.offset if placed else None,
        )
        self._on_switch(policy)

    def _tell_of_unused_file(self) -> None:
        """Somebody may have made the file stricter, and believe that it is in force."""
        own, in_force = self._own.ref, self._current.ref
        if own.digest != in_force.digest:
            log.warning(
                "policy-file-not-in-force",
                id=own.id,
                version=own.version,
                digest=own.digest,
                in_force=in_force.digest,
                remedy="`sluice policy publish FILE` puts it in force",
            )

    def _refused(self, offset: int, why: str) -> None:
        metrics.POLICY_REFUSED.inc()
        log.warning("policy-refused", offset=offset, why=why)
