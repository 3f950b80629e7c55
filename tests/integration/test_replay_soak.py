"""Ten thousand texts through the default guard, and again: the same decisions, the same scores."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from pipeline import codec, samples
from pipeline.adapters.kafka import KafkaPublisher
from pipeline.events import Kind, Message
from pipeline.ports import Outgoing
from pipeline.resources import packaged
from pipeline.settings import Settings
from tests.support import stacks, traffic
from tests.support.places import SCHEMAS

MESSAGES = 10_000
_AT_ONCE = 500


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_ten_thousand_records_replay_without_a_flip(tmp_path: Path) -> None:
    """The worker's batches and the replay's differ; no decision does, and no score by 1e-4."""
    policy = tmp_path / "plain.toml"
    shipped = packaged("policies", "default.toml").read_text()
    policy.write_text(shipped.replace('retention = "hash"', 'retention = "plain"'))
    variables = {"SLUICE_POLICY__FILE": str(policy)}
    async with stacks.open_stack(tmp_path, **variables) as (stack, at):
        await stack.start_worker()
        await _publish(at)
        report = await traffic.settled(at, within_s=1200)
        assert report.balanced, report
        await stack.workers[0].stop()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pipeline", "replay", "--policy", "recorded", "--scores",
            "rerun", "--determinism", "--json", stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **stack.variables(), **variables},
        )  # fmt: skip
        out, _ = await process.communicate()
    found = orjson.loads(out)
    check = found["determinism"]
    sys.stderr.write(
        f"\nchecked {check['checked']:,}, flips {found['flips']['records']:,},"
        f" largest score difference {check['largest_difference']:.3g},"
        f" mean {found['rerun']['score_differences']['mean']:.3g}\n"
    )
    assert process.returncode == 0
    assert check["checked"] == MESSAGES
    assert found["flips"]["records"] == 0


async def _publish(at: Settings) -> None:
    """The sample texts, each time with a number before it, so that no two are alike."""
    texts = [message for message in samples.traffic() if message.text.strip()]
    limit = at.topics.max_message_bytes
    async with KafkaPublisher(at.kafka, max_message_bytes=limit) as publisher:
        for start in range(0, MESSAGES, _AT_ONCE):
            await publisher.publish(
                [_record(at, texts[n % len(texts)], n) for n in range(start, start + _AT_ONCE)]
            )


def _record(at: Settings, message: Message, number: int) -> Outgoing:
    numbered = replace(message, message_id=f"m-{number}", text=f"{number}. {message.text}")
    named = at.topics
    topic = named.completions if message.kind is Kind.COMPLETION else named.prompts
    value = codec.encode_message(numbered, SCHEMAS)
    return Outgoing(topic=topic, key=numbered.message_id.encode(), value=value, headers=())
