"""A real Triton Inference Server on loopback, on the processor.

It serves the python backend only; a guard's CPU profile runs ONNX Runtime
inside it. Two traps of this server (24.10) shape the file:

* Killed under load it leaves its stub process and a megabyte of shared memory
  behind for ever. Server and stubs share a process group that is ended as
  one, and the shared memory carries a prefix by which it is swept up.
* A stub that crashed stays "ready" until the model is loaded again. Readiness
  here means "was loaded"; whoever serves traffic must send a canary.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.embedded.loopback import HOST, free_ports, http_status, require_free
from pipeline.embedded.plain_names import PlainNames
from pipeline.embedded.process import EmbeddedFailed, ManagedProcess, files_of
from pipeline.embedded.wheel import TritonFiles, find_triton

_START_TIMEOUT_S = 120.0  # one small model takes 2 s; large weights on a slow disk take longer
_EXIT_TIMEOUT_S = 5
_GRACE_S = _EXIT_TIMEOUT_S + 3.0
_REMEDY = "Correct the model or its config.pbtxt, or install what it imports, then start again"


class EmbeddedTriton:
    """One tritonserver with its models; `async with` starts and stops it."""

    def __init__(
        self,
        repository: Path,
        models: Sequence[str],
        home: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        profile: str = "",
        keep_open: Sequence[int] = (),
    ) -> None:
        """Describe the server; nothing runs before `start()`.

        `models`: names of folders in `repository` to load; others can be
        loaded later through the server's own interface. `home` gets the
        server's log. A port 0 is a free one, the same at every start of this
        object. `profile` picks `configs/<profile>.pbtxt` in each model.
        `keep_open` are descriptors to hold until the server is gone.
        """
        self._repository = repository.resolve()
        self._models = tuple(models)
        self._home = home.resolve()
        self._wanted = {"grpc": grpc_port, "http": http_port, "metrics": metrics_port}
        self._ports: dict[str, int] = {}
        self._profile = profile
        self._keep_open = tuple(keep_open)
        self._server: ManagedProcess | None = None
        self._names = PlainNames()
        # Never shared by two runs: sweeping up after one must not touch another's memory.
        self._shm_prefix = f"sluice_{os.getpid()}_{secrets.token_hex(4)}_"

    @property
    def grpc_address(self) -> str:
        """`127.0.0.1:port` for gRPC clients, known once it was started."""
        return self._address("grpc")

    @property
    def http_address(self) -> str:
        """`127.0.0.1:port` for HTTP clients, known once it was started."""
        return self._address("http")

    @property
    def metrics_address(self) -> str:
        """`127.0.0.1:port`; Prometheus reads `/metrics` there."""
        return self._address("metrics")

    @property
    def pid(self) -> int | None:
        """The server's process id, also its group's; None when not running."""
        return None if self._server is None else self._server.pid

    @property
    def log(self) -> Path:
        """The file that the server writes its log to."""
        return self._home / "triton" / f"server-{self._ports.get('http', 0)}.log"

    async def start(self) -> None:
        """Start the server; return when every model is loaded.

        Raises EmbeddedFailed when the host does not fit, a model cannot be
        loaded (with the server's own words), or nothing answers in time.
        """
        if self.pid is not None:
            return
        await self.kill()  # one that ended by itself leaves its stubs, memory and pipes
        self._check_models()
        self._choose_ports()
        with files_of("Triton", self._home):
            files = find_triton(self._home)
            command = self._command(files)
        self._server = ManagedProcess(
            "Triton",
            command,
            log=self.log,
            remedy=_REMEDY,
            env=files.environment(),
            grace_s=_GRACE_S,
            sweep=f"/dev/shm/{self._shm_prefix}*",  # noqa: S108 - where Linux keeps it
            keep_open=self._keep_open,
        )
        try:
            await self._bring_up(self._server)
        except BaseException:
            await self.stop()
            raise

    async def _bring_up(self, server: ManagedProcess) -> None:
        """Start and wait; an early end is told in the server's own words."""
        try:
            await server.start()
            await server.until(lambda: self._is_ready(server), timeout_s=_START_TIMEOUT_S)
        except EmbeddedFailed as error:
            if server.status is None:  # it never ran: the log is not to be opened, or an older one
                raise
            words = _errors_in(server.said())
            raise server.failure("did not start", tail=words or error.tail) from error

    async def stop(self) -> None:
        """Stop in order (2-3 s), with SIGKILL to server and stubs after 8 s.

        Close clients first: one open HTTP connection costs five seconds more.
        """
        if self._server is not None:
            await self._server.stop()
        self._names.forget()

    async def kill(self) -> None:
        """End server and stubs with SIGKILL; their shared memory is freed."""
        if self._server is not None:
            await self._server.kill()
        self._names.forget()

    def lost(self) -> EmbeddedFailed | None:
        """The error about an end that nobody asked for; None if there was none."""
        return self._server.lost() if self._server else None

    async def __aenter__(self) -> Self:
        """Start the server."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        await self.stop()

    def _address(self, service: str) -> str:
        return f"{HOST}:{self._ports.get(service, self._wanted[service])}"

    def _check_models(self) -> None:
        """Say which model is missing, before a server is started for it."""
        for model in self._models:
            if not (self._repository / model / "config.pbtxt").is_file():
                remedy = f"The models there are: {', '.join(self._known_models()) or 'none'}"
                problem = f"has no model {model!r} in {self._repository}"
                raise EmbeddedFailed("Triton", problem, remedy=remedy)

    def _known_models(self) -> list[str]:
        return sorted(config.parent.name for config in self._repository.glob("*/config.pbtxt"))

    def _choose_ports(self) -> None:
        """Settle the ports at the first start, so that clients reconnect."""
        for port in filter(None, (self._ports or self._wanted).values()):
            require_free("Triton", port)
        if not self._ports:
            spare = iter(free_ports(len(self._wanted)))
            self._ports = {name: port or next(spare) for name, port in self._wanted.items()}

    def _command(self, files: TritonFiles) -> list[str]:
        """The server's command line; everything on loopback."""
        options = [
            f"--model-repository={self._names.of(self._repository)}",
            f"--backend-directory={self._names.of(files.backends)}",
            f"--cache-directory={files.caches}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self._models),
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
            # Without a GPU these only fill the log with errors about missing drivers.
            "--allow-gpu-metrics=false",
        ]
        for service, port in self._ports.items():
            options += [f"--{service}-address={HOST}", f"--{service}-port={port}"]
        if self._profile:
            options.append(f"--model-config-name={self._profile}")
        return [str(files.server), *options]

    async def _is_ready(self, server: ManagedProcess) -> bool:
        """Whether the server and each model say that they are ready."""
        port = self._ports["http"]
        paths = ["/v2/health/ready", *(f"/v2/models/{model}/ready" for model in self._models)]
        for path in paths:
            if await http_status(port, path) != HTTPStatus.OK:
                return False
        # Last: what answered may be another stack's server on the same port.
        return server.listens(*self._ports.values())


def _errors_in(log: str) -> str:
    """The server's error lines, without those that any host lacking a GPU has."""
    lines = [line for line in log.splitlines() if line.startswith(("E1", "E0"))]
    return "\n".join(line for line in lines if "CudaDriverHelper" not in line)
