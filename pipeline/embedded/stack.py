"""The whole stack on loopback: broker, Triton, topics, workers.

Everything ends when this process ends; see `process.py`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

import orjson

from pipeline.adapters.kafka_topics import create_topics
from pipeline.embedded.kafka import EmbeddedKafka
from pipeline.embedded.loopback import HOST, free_ports, http_status, is_free
from pipeline.embedded.process import EmbeddedFailed, ManagedProcess
from pipeline.embedded.triton import EmbeddedTriton
from pipeline.settings import Settings

_WATCH_S = 0.5
_GRACE_S = 30.0  # a worker drains for worker.drain_s (10 s) and gives up ten seconds later
_WORKER_REMEDY = "Read its log; `sluice doctor` tells what it lacks"


class EmbeddedStack:
    """A broker, a Triton and workers; `async with` starts and stops them."""

    def __init__(
        self,
        settings: Settings,
        *,
        home: Path,
        data: Path,
        environ: Mapping[str, str],
        say: Callable[[str], None] = lambda _line: None,
        prefer_ports: bool = False,
        keep_open: Sequence[int] = (),
    ) -> None:
        """`settings` name topics and guards; addresses are the stack's own.

        `environ` is what workers start with; `prefer_ports` takes the default
        ports where they are free, so that other programs find the stack.
        `keep_open` are descriptors to hold until the last part is gone, even
        when this process was killed: the lock of the data folder, say.
        """
        self._settings = settings
        self._environ = dict(environ)
        self._say = say
        port = _free_or_any if prefer_ports else _any
        self._keep_open = tuple(keep_open)
        self.kafka = EmbeddedKafka(
            home, data / "kafka", port(9092), on_progress=say, keep_open=keep_open
        )
        self.triton = EmbeddedTriton(
            settings.guards.repository,
            settings.guards.served,
            data,
            grpc_port=port(8001),
            http_port=port(8000),
            metrics_port=port(8002),
            keep_open=keep_open,
        )
        self._worker_port = port(settings.worker.http_port)
        self._logs = data / "workers"
        self.workers: list[EmbeddedWorker] = []

    def overrides(self) -> dict[str, Any]:
        """The settings that lead to this stack, as arguments of `settings.load`."""
        return {
            "kafka": {
                "bootstrap_servers": self.kafka.bootstrap_servers,
                "security_protocol": "PLAINTEXT",
                "instance_id": None,
            },
            "triton": {"url": self.triton.grpc_address, "tls": False},
            "registry": {"url": None},
        }

    def variables(self) -> dict[str, str]:
        """The environment variables that lead other programs to this stack.

        Beside the addresses, only what the settings say about another stack.
        """
        theirs = self._settings
        others = {
            "SLUICE_KAFKA__SECURITY_PROTOCOL": (theirs.kafka.security_protocol, "PLAINTEXT"),
            "SLUICE_TRITON__TLS": (str(theirs.triton.tls).lower(), "false"),
            "SLUICE_REGISTRY__URL": (theirs.registry.url or "", ""),
        }
        return {
            "SLUICE_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "SLUICE_TRITON__URL": self.triton.grpc_address,
            **{name: ours for name, (said, ours) in others.items() if said != ours},
        }

    async def __aenter__(self) -> Self:
        """Start broker and Triton side by side, then make the topics."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_kafka())
                group.create_task(self._start_triton())
            reached = self._settings.kafka.model_copy(update=self.overrides()["kafka"])
            await create_topics(reached, self._settings.topics)
        except BaseExceptionGroup as group_error:
            await self.stop()
            raise group_error.exceptions[0] from None
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything, workers first."""
        await self.stop()

    async def start_worker(self, **variables: str) -> EmbeddedWorker:
        """Start one more worker; return when it is ready. `variables` are settings."""
        number = len(self.workers) + 1
        port = self._worker_port if number == 1 else 0
        worker = EmbeddedWorker(
            f"worker-{number}",
            port=port or free_ports(1)[0],
            log=self._logs / f"worker-{number}.log",
            environ={**_nobody(self._environ), **self.variables(), **variables},
            keep_open=self._keep_open,
        )
        self.workers.append(worker)
        await worker.start()
        self._say(f"worker-{number} is ready, health at http://{worker.address}/readyz")
        return worker

    async def ended(self) -> NoReturn:
        """Wait until a part ends by itself, then raise EmbeddedFailed about it.

        Parts that `stop()` or `kill()` ended do not count.
        """
        while True:
            parts: list[_Part] = [*self.workers, self.triton, self.kafka]
            for part in parts:
                if lost := part.lost():
                    raise lost
            await asyncio.sleep(_WATCH_S)

    async def stop(self) -> None:
        """Stop workers, Triton and broker, in that order."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        await asyncio.gather(self.triton.stop(), self.kafka.stop())

    async def _start_kafka(self) -> None:
        await self.kafka.start()
        self._say(f"Apache Kafka serves at {self.kafka.bootstrap_servers}")

    async def _start_triton(self) -> None:
        await self.triton.start()
        self._say(f"Triton Inference Server serves at {self.triton.grpc_address}")


class EmbeddedWorker:
    """A worker in a process of its own; can be killed and started again."""

    def __init__(
        self,
        name: str,
        *,
        port: int,
        log: Path,
        environ: Mapping[str, str],
        keep_open: Sequence[int] = (),
    ) -> None:
        self._port = port
        self._process = ManagedProcess(
            name,
            # -P: a folder `pipeline` where the command was given is not ours.
            [sys.executable, "-P", "-m", "pipeline", "worker"],
            log=log,
            remedy=_WORKER_REMEDY,
            grace_s=_GRACE_S,
            env={
                **environ,
                "SLUICE_WORKER__ID": name,
                "SLUICE_WORKER__HTTP_PORT": str(port),
            },
            keep_open=keep_open,
        )
        self.log = log

    @property
    def address(self) -> str:
        """`127.0.0.1:port` of its health server."""
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Its process id; None when it does not run."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status once it has ended, None before."""
        return self._process.status

    async def start(self, *, ready_within_s: float = 60.0) -> None:
        """Start it; return when it is ready. Raises EmbeddedFailed."""
        await self.launch()
        await self._process.until(self.ready, timeout_s=ready_within_s)

    async def launch(self) -> None:
        """Start it without waiting."""
        await self._process.start()

    async def stop(self) -> None:
        """SIGTERM, so that it drains; SIGKILL past its grace."""
        await self._process.stop()

    async def kill(self) -> None:
        """SIGKILL."""
        await self._process.kill()

    def lost(self) -> EmbeddedFailed | None:
        """The error about an end that nobody asked for; None if there was none."""
        return self._process.lost()

    async def ready(self) -> bool:
        """Whether it says it is ready."""
        answer = await http_status(self._port, "/readyz")
        return answer == HTTPStatus.OK and self._process.listens(self._port)


class _Part(Protocol):
    def lost(self) -> EmbeddedFailed | None: ...


def _nobody(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without a static member's name, which two workers cannot share."""
    kept = {k: v for k, v in environ.items() if k.upper() != "SLUICE_KAFKA__INSTANCE_ID"}
    # In the section's JSON value: only there can "none" be said, against what a file says.
    section = orjson.loads(environ.get("SLUICE_KAFKA") or "{}") | {"instance_id": None}
    return kept | {"SLUICE_KAFKA": orjson.dumps(section).decode()}


def _any(_preferred: int) -> int:
    return 0


def _free_or_any(preferred: int) -> int:
    return preferred if is_free(preferred) else 0
