"""Faults of the guard: its server away or silent, its answers late or wrong, itself replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

from tritonclient.grpc.aio import InferenceServerClient

from tests.chaos.catalogue import Scene, Seen, fault
from tests.support import places, tiny_guard

_QUICK = {"SLUICE_TRITON__TIMEOUT_S": "2"}
_ERRORS = "sluice_classifier_errors_total"


async def _load(scene: Scene) -> None:
    client = InferenceServerClient(scene.triton.grpc_address)
    await client.load_model("tiny")
    await client.close()


@fault(
    "triton-sigkill",
    heals="started again",
    lasts_s=4.0,
    seen=Seen(
        alert="WorkerNotReady", check="guard", said=("does not answer",), metric=_ERRORS
    ),
)  # fmt: skip
async def triton_sigkill(scene: Scene) -> AsyncIterator[None]:
    """SIGKILL of Triton."""
    await scene.triton.kill()
    yield
    await scene.triton.start()


@fault(
    "triton-sigstop",
    heals="SIGCONT, and a start as by a supervisor if Triton dies of it",
    lasts_s=6.0,
    variables=_QUICK,
    seen=Seen(
        alert="ClassifierErrors", check="guard", said=("gave no answer in 2 s",), metric=_ERRORS
    ),
)  # fmt: skip
async def triton_sigstop(scene: Scene) -> AsyncIterator[None]:
    """SIGSTOP of Triton: connections stay open, nothing answers."""
    assert scene.triton.pid is not None
    os.killpg(scene.triton.pid, signal.SIGSTOP)
    yield
    os.killpg(scene.triton.pid, signal.SIGCONT)
    await asyncio.sleep(2.0)
    await scene.triton.start()  # 2.51 may die of it, of a lock that its stub held


@fault(
    "triton-slow",
    heals="as quick as before",
    lasts_s=6.0,
    variables={"SLUICE_GUARDS__MAX_ROWS": "8"},
    seen=Seen(alert="LagGrowing", metric="sluice_consumer_lag_messages", rises=300),
)
async def triton_slow(scene: Scene) -> AsyncIterator[None]:
    """Every call takes 300 ms instead of 30: less is judged than is published."""
    tiny_guard.order(scene.repository, "pause 0.3")
    yield
    tiny_guard.order(scene.repository, "")


@fault(
    "triton-errors",
    heals="answers again",
    lasts_s=4.0,
    seen=Seen(alert="ClassifierErrors", check="guard", said=("failed",), metric=_ERRORS),
)
async def triton_errors(scene: Scene) -> AsyncIterator[None]:
    """The guard answers every call with an error."""
    tiny_guard.order(scene.repository, "error")
    yield
    tiny_guard.order(scene.repository, "")


@fault(
    "triton-wrong-shape",
    heals="answers as its card says",
    lasts_s=4.0,
    seen=Seen(alert="WorkerNotReady", check="guard", said=("answered with shape",)),
)
async def triton_wrong_shape(scene: Scene) -> AsyncIterator[None]:
    """The guard answers with a tensor of another shape."""
    tiny_guard.order(scene.repository, "shape")
    yield
    tiny_guard.order(scene.repository, "")


@fault(
    "triton-nan",
    heals="answers with numbers",
    lasts_s=4.0,
    short_s=1.5,
    seen=Seen(alert="WorkerNotReady", check="guard", said=("not a number",)),
)
async def triton_nan(scene: Scene) -> AsyncIterator[None]:
    """The guard answers with NaN for every text."""
    tiny_guard.order(scene.repository, "nan")
    yield
    tiny_guard.order(scene.repository, "")


@fault(
    "model-unloaded",
    heals="loaded again",
    lasts_s=4.0,
    seen=Seen(alert="WorkerNotReady", check="guard", said=("does not serve",), metric=_ERRORS),
)
async def model_unloaded(scene: Scene) -> AsyncIterator[None]:
    """The model is unloaded from a running Triton."""
    client = InferenceServerClient(scene.triton.grpc_address)
    await client.unload_model("tiny")
    await client.close()
    yield
    await _load(scene)


@fault(
    "model-replaced",
    heals="the first version is served again",
    lasts_s=3.0,
    versions=("1", "2"),
    seen=Seen(said=("guard-version",), metric="sluice_messages_total", rises=200),
)
async def model_replaced(scene: Scene) -> AsyncIterator[None]:
    """Another version of the same guard is loaded mid-stream: verdicts name the one that judged."""
    tiny_guard.add_version(scene.repository, 2)
    await _load(scene)
    yield
    tiny_guard.remove_version(scene.repository, 2)
    await _load(scene)


@fault(
    "model-swapped",
    heals="the model of the card is served again, the worker started again",
    lasts_s=1.0,
    seen=Seen(alert="WorkerNotReady", down=True, said=("with weights",), exit=2),
)
async def model_swapped(scene: Scene) -> AsyncIterator[None]:
    """A version with other weights is loaded mid-stream: none of its scores becomes a verdict."""
    tiny_guard.add_version(scene.repository, 2, low=-3.0)
    await _load(scene)
    await places.ended(scene.worker, within_s=20.0)
    yield
    tiny_guard.remove_version(scene.repository, 2)
    await _load(scene)
    await scene.worker.start()
