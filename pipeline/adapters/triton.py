"""A guard's forward pass in Triton, over gRPC; every foreign error is mapped here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import chain
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import orjson
import structlog
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from pipeline import metrics
from pipeline.adapters import tls
from pipeline.errors import DependencyUnavailable, Reason, Rejected, Retryable
from pipeline.ports import Inference
from pipeline.settings import TritonSettings

log = structlog.get_logger(__name__)

_CHANNEL: Final = [
    # Given options replace the client's own, so the unlimited sizes are said again.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Several replicas behind one name share the load; the default pins one of them.
    ("grpc.lb_policy_name", "round_robin"),
    # A proxy of the environment is for the web, not for the inference server.
    ("grpc.enable_http_proxy", 0),
    # A restarted server is found again in a second, not in two minutes.
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
]
_REFUSED: Final = frozenset({"StatusCode.INVALID_ARGUMENT", "StatusCode.OUT_OF_RANGE"})
_DEAD_STUB: Final = "is not healthy"


class TritonClassifier:
    """A `Classifier` over one Triton address; an async context manager."""

    def __init__(self, settings: TritonSettings) -> None:
        """Describe the channel; raises Misconfigured when its certificates cannot be read."""
        self._settings = settings
        if settings.tls and settings.ca_file:
            # gRPC takes any bytes for certificates, and then finds no server.
            tls.trusting(settings.ca_file, setting="triton.ca_file")
        self._client = InferenceServerClient(
            settings.url,
            ssl=settings.tls,
            root_certificates=str(settings.ca_file) if settings.ca_file else None,
            channel_args=_CHANNEL,
        )
        self._healing = asyncio.Lock()
        self._healed_s: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        """The channel connects on first use."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channel."""
        await self._client.close()

    async def infer(
        self, guard: str, rows: Sequence[Sequence[int]], *, length: int, pad_id: int
    ) -> Inference:
        """Logits of token-id rows, each padded to `length`; see `ports.Classifier`."""
        ids, mask = pad(rows, length, pad_id)
        began_s = time.monotonic()
        try:
            result = await self._client.infer(
                guard,
                [_tensor("input_ids", ids), _tensor("attention_mask", mask)],
                outputs=[InferRequestedOutput("logits")],
                client_timeout=self._settings.timeout_s,
            )
        except InferenceServerException as error:
            raise await self._mapped(guard, error, began_s) from error
        logits = result.as_numpy("logits")
        if logits is None:
            raise Retryable(
                f"guard {guard} answered without logits",
                remedy="Check the served model's outputs with `sluice doctor`",
            )
        return Inference(
            logits=logits.astype(np.float32, copy=False),
            version=result.get_response().model_version,
            elapsed_s=time.monotonic() - began_s,
        )

    async def ready(self, guard: str) -> bool:
        """Whether the server says the guard is ready; raises DependencyUnavailable."""
        try:
            return bool(await self._client.is_model_ready(guard, client_timeout=3.0))
        except InferenceServerException as error:
            raise self._unavailable(error) from error

    async def served_digest(self, guard: str) -> str | None:
        """The weights' digest that the served configuration states, if it does.

        Raises DependencyUnavailable also where the guard is not loaded: an
        operator who loads it again need not start every worker again as well.
        """
        parameters: Any = (await self._config(guard)).parameters
        return parameters["digest"].string_value if "digest" in parameters else None

    async def instances(self, guard: str) -> int:
        """How many calls of a guard one server computes at a time; raises as `served_digest`."""
        groups: Any = (await self._config(guard)).instance_group
        each: list[int] = [max(1, group.count) * max(1, len(group.gpus)) for group in groups]
        return max(1, sum(each))

    async def most_rows(self, guard: str) -> int | None:
        """Rows that one call of a guard may hold; None: any number. Raises as `served_digest`."""
        return int((await self._config(guard)).max_batch_size) or None

    async def _config(self, guard: str) -> Any:
        try:
            answer = await self._client.get_model_config(guard, client_timeout=3.0)
        except InferenceServerException as error:
            if error.status() == "StatusCode.NOT_FOUND":
                raise self._unavailable_model(guard) from error
            raise self._unavailable(error) from error
        response: service_pb2.ModelConfigResponse = answer
        return response.config

    async def _mapped(
        self, guard: str, error: InferenceServerException, began_s: float
    ) -> Exception:
        status, message = error.status() or "", error.message() or ""
        metrics.CLASSIFIER_ERRORS.labels(guard, status.removeprefix("StatusCode.")).inc()
        if status in _REFUSED:
            return Rejected(
                Reason.GUARD_REFUSED,
                f"guard {guard} refused the input ({_short(message)})",
                remedy="Compare the guard's card with the served model's inputs",
            )
        if _DEAD_STUB in message:
            await self._heal(guard, began_s)
        if status == "StatusCode.NOT_FOUND":
            return self._unavailable_model(guard)
        if status == "StatusCode.DEADLINE_EXCEEDED":
            return DependencyUnavailable(
                f"guard {guard} at {self._settings.url} gave no answer in"
                f" {self._settings.timeout_s:g} s",
                remedy="Look at the server's load, or raise triton.timeout_s",
            )
        if status == "StatusCode.INTERNAL":
            return Retryable(
                f"guard {guard} at {self._settings.url} failed ({_short(message)})",
                remedy="Read the server's log; `sluice doctor` asks the guard its golden texts",
            )
        return self._unavailable(error)

    async def _heal(self, guard: str, began_s: float) -> None:
        """Load a guard again whose process has died; the server never does by itself.

        Once for all calls that found it dead: one that began before the last
        load ended says nothing about what was loaded.
        """
        async with self._healing:
            if not self._settings.heal or began_s < self._healed_s.get(guard, began_s):
                return
            log.warning("guard-reload", guard=guard)
            try:
                await self._load_again(guard)
            except InferenceServerException as error:
                log.error("guard-reload-failed", guard=guard, error=_short(error.message() or ""))
            self._healed_s[guard] = time.monotonic()

    async def _load_again(self, guard: str) -> None:
        """Make the server load a guard that it believes to be loaded.

        It skips what has not changed since it was loaded, so that asking alone
        would help once; a parameter that nobody reads makes a change.
        """
        asked: Any = self._client.get_model_config(guard, as_json=True, client_timeout=3.0)
        config = (await asked)["config"]
        config.setdefault("parameters", {})["reloaded_at"] = {"string_value": str(time.time())}
        text = orjson.dumps(config).decode()
        await self._client.load_model(guard, config=text, client_timeout=30.0)

    def _unavailable(self, error: InferenceServerException) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"Triton at {self._settings.url} does not answer ({_short(error.message() or '')})",
            remedy="Start it or correct triton.url; `sluice doctor` tells which part is down",
        )

    def _unavailable_model(self, guard: str) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"Triton at {self._settings.url} does not serve guard {guard!r}",
            remedy="Load it, or correct guards.names",
        )


def pad(
    rows: Sequence[Sequence[int]], length: int, pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`input_ids` and `attention_mask`, both int64 [rows, length]."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    mask = np.arange(length) < lengths[:, np.newaxis]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    return ids, mask.astype(np.int64)


def _tensor(name: str, values: NDArray[np.int64]) -> InferInput:
    tensor = InferInput(name, list(values.shape), "INT64")
    tensor.set_data_from_numpy(values)
    return tensor


def _short(message: str) -> str:
    """The first line of a server's message; it holds tensors' shapes, never text."""
    return (message.splitlines() or [""])[0][:200]


async def wait_ready(classifier: TritonClassifier, guards: Sequence[str], timeout_s: float) -> None:
    """Return once every guard is ready; raises DependencyUnavailable at the deadline."""
    problem: DependencyUnavailable | None = None
    try:
        async with asyncio.timeout(timeout_s):
            for guard in guards:
                while True:
                    try:
                        if await classifier.ready(guard):
                            break
                        problem = classifier._unavailable_model(guard)
                    except DependencyUnavailable as error:
                        problem = error
                    await asyncio.sleep(0.1)
    except TimeoutError:
        raise problem or DependencyUnavailable(
            "Triton does not answer", remedy="Start it"
        ) from None
