"""The work as a Quix StreamingDataFrame: a function a message, two output topics.

A StreamingDataFrame gives its function one message at a time, so every guard
call has one row. The guard is asked through Triton's synchronous client, and
scores are read without the worker's checks: cheaper than the worker's way.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

from quixstreams import Application, message_context
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from loadtest.bench.work import Desk
from pipeline import settings, wiring
from pipeline.adapters.triton import pad
from pipeline.events import GuardRef, Judgement, Position
from pipeline.guards.framing import frame
from pipeline.moderation import Case
from pipeline.ports import Outgoing
from pipeline.scoring import Guard
from pipeline.settings import Settings


class Calls:
    """One guard, asked one message at a time."""

    def __init__(self, given: Settings) -> None:
        (self._guard,) = wiring.load_guards(given.guards)
        self._max_windows = given.guards.max_windows
        self._client = InferenceServerClient(given.triton.url)

    def judge(self, case: Case) -> Judgement:
        """What the guard says of a message."""
        guard: Guard = self._guard
        card = guard.card
        (text,) = frame(
            card, guard.tokenizer, [case.received.message], max_windows=self._max_windows
        )
        longest = max(len(window) for window in text.windows)
        length = next(bucket for bucket in card.buckets if bucket >= longest)
        scores = card.scores(self._logits(text.windows, length)).max(axis=0)
        return Judgement(
            guard=GuardRef(name=card.name, version="1", digest=card.digest),
            scores=dict(zip(card.labels, scores.tolist(), strict=True)),
            coverage=text.coverage,
            template_digest=card.template_digest,
            windows=len(text.windows),
            batch_rows=len(text.windows),
            queued_s=0.0,
            inference_s=0.0,
        )

    def _logits(self, rows: Any, length: int) -> Any:
        tensors = []
        for name, values in zip(
            ("input_ids", "attention_mask"), pad(rows, length, self._guard.card.pad_id), strict=True
        ):
            tensor = InferInput(name, list(values.shape), "INT64")
            tensor.set_data_from_numpy(values)
            tensors.append(tensor)
        outputs = [InferRequestedOutput("logits")]
        return self._client.infer(self._guard.card.name, tensors, outputs=outputs).as_numpy(
            "logits"
        )


def main() -> None:
    """Run until SIGTERM, with the settings of the environment."""
    given = settings.load()
    with TemporaryDirectory(prefix="bench-") as folder:
        app = Application(
            broker_address=given.kafka.bootstrap_servers,
            consumer_group=given.kafka.group,
            auto_offset_reset="earliest",
            auto_create_topics=False,
            commit_interval=given.kafka.commit_interval_s,
            producer_extra_config={
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "zstd",
                "linger.ms": 1,
            },
            state_dir=folder,
            loglevel="WARNING",
        )
        _build(app, given)
        app.run()


def _build(app: Any, given: Settings) -> None:
    named, desk, calls = given.topics, Desk(given), Calls(given)

    def judge(value: bytes, _key: Any, _timestamp: int, received: Any) -> Any:
        """Both outcomes of a message."""
        at = message_context()
        where = Position(topic=at.topic, partition=at.partition, offset=at.offset)
        case = desk.admit(value, where, tuple(received or ()))
        return desk.outcome(case, (calls.judge(case),))

    frames = app.dataframe(_bytes(app, named.prompts)).apply(judge, metadata=True)
    for index, topic in enumerate((named.verdicts, named.audit)):
        branch = frames.apply(lambda pair, index=index: pair[index])
        branch = branch.set_headers(_headers)
        branch.apply(lambda outcome: outcome.value).to_topic(_bytes(app, topic))


def _headers(outcome: Outgoing, *_: Any) -> list[tuple[str, bytes]]:
    return list(outcome.headers)


def _bytes(app: Any, name: str) -> Any:
    return app.topic(
        name,
        key_serializer="bytes",
        key_deserializer="bytes",
        value_serializer="bytes",
        value_deserializer="bytes",
    )


if __name__ == "__main__":
    main()
