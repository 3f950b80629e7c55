"""The composition root of the commands around the policies topic."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline import policy_feed, policy_history, schema_ids, wiring
from pipeline.adapters import kafka_admin
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.errors import Misconfigured
from pipeline.policy import Policy
from pipeline.policy_history import History, Placed, PolicyRecord
from pipeline.settings import Settings


async def history(settings: Settings) -> tuple[History, list[tuple[int, str]]]:
    """Everything the policies topic says; and what was refused: offset and reason."""
    schemas, found = wiring.load_schemas(), History()
    await schema_ids.adopt(schemas, settings)
    refused: list[tuple[int, str]] = []
    async with kafka_admin.open_reader(settings.kafka) as reader:
        await policy_feed.read_all(
            reader,
            settings.topics.policies,
            found,
            schemas,
            lambda offset, why: refused.append((offset, why)),
        )
    return found, refused


async def lookup(settings: Settings) -> Callable[[str], Policy | None]:
    """Policies by digest: those of the topic, then the configured file's; None for others."""
    try:
        found, _ = await history(settings)
    except Misconfigured:  # there is no such topic yet
        found = History()

    def by_digest(digest: str) -> Policy | None:
        """The policy of a digest, None when neither holds it."""
        return found.policy(digest) or _configured(settings, digest)

    return by_digest


def _configured(settings: Settings, digest: str) -> Policy | None:
    try:
        policy = wiring.load_policy(settings)
    except Misconfigured:
        return None
    return policy if policy.ref.digest == digest else None


async def publish(settings: Settings, *, note: str | None, activate: bool) -> PolicyRecord:
    """Publish the configured policy file, unless the topic has it, and activate it if asked."""
    record = policy_history.of_policy(
        wiring.policy_text(settings),
        name=str(settings.policy.file),
        at=datetime.now(UTC),
        by=_who(),
        note=note,
    )
    known, _ = await history(settings)
    missing = [record] if known.document(record.digest) is None else []
    await _send(settings, [*missing, *([_activation(record, note)] if activate else [])])
    return record


async def activate(settings: Settings, digest: str, *, note: str | None) -> Placed:
    """Activate a published policy by (the beginning of) its digest.

    Raises Misconfigured when there is no such policy, the guards here do not
    score what it names, or it wants keys and there is no folder of them.
    """
    known, _ = await history(settings)
    found = known.find(digest)
    policy = known.policy(found.record.digest)
    if policy is None:
        raise policy_history.not_a_policy(found.record)
    wiring.check_servable(policy, wiring.load_guards(settings.guards), settings)
    await _send(settings, [_activation(found.record, note)])
    return found


def _activation(record: PolicyRecord, note: str | None) -> PolicyRecord:
    return policy_history.activation(record, at=datetime.now(UTC), by=_who(), note=note)


async def _send(settings: Settings, records: list[PolicyRecord]) -> None:
    schemas, topic = wiring.load_schemas(), settings.topics.policies
    await schema_ids.adopt(schemas, settings)
    limit = settings.topics.max_message_bytes
    async with KafkaPublisher(settings.kafka, max_message_bytes=limit) as publisher:
        await publisher.publish([policy_feed.outgoing(topic, each, schemas) for each in records])


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
