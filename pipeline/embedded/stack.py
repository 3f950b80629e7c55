"""The whole stack on loopback: broker, Triton, topics, workers.

Everything ends when this process ends; see `process.py`.
"""

from __future__ import annotations

import asyncio
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.adapters.kafka_topics import create_topics
from pipeline.embedded.kafka import EmbeddedKafka
from pipeline.embedded.loopback import HOST, free_ports, is_free
from pipeline.embedded.process import ManagedProcess
from pipeline.embedded.triton import EmbeddedTriton
from pipeline.settings import Settings

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
    ) -> None:
        """`settings` name topics and guards; addresses are the stack's own.

        `environ` is what workers start with; `prefer_ports` takes the default
        ports where they are free, so that other programs find the stack.
        """
        self._settings = settings
        self._environ = dict(environ)
        self._say = say
        port = _free_or_any if prefer_ports else _any
        self.kafka = EmbeddedKafka(home, data / "kafka", port(9092), on_progress=say)
        self.triton = EmbeddedTriton(
            settings.guards.repository,
            settings.guards.served,
            data,
            grpc_port=port(8001),
            http_port=port(8000),
            metrics_port=port(8002),
        )
        self._worker_port = port(settings.worker.http_port)
        self._logs = data / "workers"
        self.workers: list[EmbeddedWorker] = []

    def overrides(self) -> dict[str, Any]:
        """The settings that lead to this stack, as arguments of `settings.load`."""
        return {
            "kafka": {"bootstrap_servers": self.kafka.bootstrap_servers},
            "triton": {"url": self.triton.grpc_address},
        }

    def variables(self) -> dict[str, str]:
        """The environment variables that lead other programs to this stack."""
        return {
            "SLUICE_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "SLUICE_TRITON__URL": self.triton.grpc_address,
        }

    async def __aenter__(self) -> Self:
        """Start broker and Triton side by side, then make the topics."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_kafka())
                group.create_task(self._start_triton())
            self._settings = self._settings.model_copy(
                update={
                    "kafka": self._settings.kafka.model_copy(
                        update={"bootstrap_servers": self.kafka.bootstrap_servers}
                    )
                }
            )
            await create_topics(self._settings.kafka, self._settings.topics)
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
            environ={**self._environ, **self.variables(), **variables},
        )
        self.workers.append(worker)
        await worker.start()
        self._say(f"worker-{number} is ready, health at http://{worker.address}/readyz")
        return worker

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

    def __init__(self, name: str, *, port: int, log: Path, environ: Mapping[str, str]) -> None:
        self._port = port
        self._process = ManagedProcess(
            name,
            [sys.executable, "-m", "pipeline", "worker"],
            log=log,
            remedy=_WORKER_REMEDY,
            grace_s=_GRACE_S,
            env={
                **environ,
                "SLUICE_WORKER__ID": name,
                "SLUICE_WORKER__HTTP_PORT": str(port),
            },
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

    async def ready(self) -> bool:
        """Whether it says it is ready."""
        return await asyncio.to_thread(_answers_ok, f"http://{self.address}/readyz")


def _answers_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _any(_preferred: int) -> int:
    return 0


def _free_or_any(preferred: int) -> int:
    return preferred if is_free(preferred) else 0
