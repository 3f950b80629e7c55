"""A real Apache Kafka broker on loopback, for the demo and for tests.

One process is broker and controller (KRaft); there is no other. It is tuned
to start quickly and to be small, not to be fast: the JVM stops at its first
compiler, and its loaded classes are archived at the first orderly stop, which
takes three seconds longer and halves every later start.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.embedded.jars import find_java, java_build, resolve_jars
from pipeline.embedded.loopback import HOST, free_ports, kafka_brokers, require_free
from pipeline.embedded.process import EmbeddedFailed, ManagedProcess, files_of
from pipeline.resources import shipped

_START_TIMEOUT_S = 60.0
_FORMAT_TIMEOUT_S = 60.0
_ENDED_IN_ORDER = 128 + 15  # how a JVM ends that was asked to, by SIGTERM
_GRACE_S = 20.0  # an orderly stop takes 0.5 s, with the class archive 4 s
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_REMEDY = "Look at the broker's log; when its data folder is damaged, remove it and start again"

_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")

# https://kafka.apache.org/documentation/#brokerconfigs
_SETTINGS: dict[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One broker can hold one replica; few partitions of the inner topics, or the first
    # consumer group waits for fifty of them to be made.
    "default.replication.factor": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 2,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 2,
    # A group of one worker need not wait for others, and tests evict members quickly.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    # After SIGKILL the controller believes in the dead broker's session until it lapses: the
    # default of 9 s is how long a restart would take. Three leave room on a busy machine.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    "message.max.bytes": _MAX_MESSAGE_BYTES,
    "replica.fetch.max.bytes": _MAX_MESSAGE_BYTES,
    "log.retention.hours": 24,
    "log.retention.bytes": 1024**3,
    "log.segment.bytes": 64 * 1024**2,
    # The default (128 MB, on the heap) is a quarter of the heap that we give.
    "log.cleaner.dedupe.buffer.size": 8 * 1024**2,
    "num.network.threads": 2,
    "num.io.threads": 4,
}


class EmbeddedKafka:
    """One broker with its data folder; `async with` starts and stops it."""

    def __init__(
        self,
        home: Path,
        data: Path,
        port: int = 0,
        *,
        on_progress: Callable[[str], None] = lambda _line: None,
        overrides: Mapping[str, object] | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Describe the broker; nothing runs before `start()`.

        `home` keeps what is resolved once (jars, class archive), `data` the
        topics and `broker.log`. `port` 0: a free one, the same at every start
        of this object. `on_progress` gets a line when something takes long.
        `overrides` are broker settings that replace this module's. `keep_open`
        are descriptors to hold until the broker is gone, whatever ends first.
        """
        self._home = home.resolve()
        self._data = data.resolve()
        self._port = port
        self._controller_port = 0
        self._on_progress = on_progress
        self._overrides = dict(overrides or {})
        self._keep_open = tuple(keep_open)
        self._broker: ManagedProcess | None = None
        self._archive: tuple[Path, Path] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """`127.0.0.1:port`, known once `start()` was called."""
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The broker's process id; None when it does not run."""
        return None if self._broker is None else self._broker.pid

    @property
    def log(self) -> Path:
        """The file that the broker writes its log to."""
        return self._data / "broker.log"

    async def start(self) -> None:
        """Start the broker on its data; return when it serves clients.

        Raises EmbeddedFailed when Java or Maven is missing, a jar cannot be
        had, the port is taken, or the broker ends or stays silent.
        """
        if self.pid is not None:
            return
        self._check_data()
        java = await asyncio.to_thread(find_java)
        pom = shipped("compose", "embedded", "pom.xml")
        with files_of("Kafka", self._home):
            libs = await resolve_jars(self._home, pom, self._on_progress)
        self._choose_ports()
        with files_of("Kafka", self._data):
            settings = self._write_settings()
        try:
            await self._format(java, libs, settings)
            await self._run(java, libs, settings)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop in order, with SIGKILL after 20 s; the data stays."""
        if self._broker is not None:
            await self._broker.stop()
        self._keep_archive()

    async def kill(self) -> None:
        """End the broker with SIGKILL; the data stays as the disk has it."""
        if self._broker is not None:
            await self._broker.kill()

    def lost(self) -> EmbeddedFailed | None:
        """The error about an end that nobody asked for; None if there was none."""
        return self._broker.lost() if self._broker else None

    async def __aenter__(self) -> Self:
        """Start the broker."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the broker."""
        await self.stop()

    def _check_data(self) -> None:
        """Raise EmbeddedFailed for a folder that the broker would take for two."""
        if "," in str(self._data):
            remedy = "Set SLUICE_HOME to a folder without a comma in its path"
            raise EmbeddedFailed("Kafka", f"cannot keep its data in {self._data}", remedy=remedy)

    def _choose_ports(self) -> None:
        """Settle both ports at the first start, for the object's life."""
        if self._port:
            require_free("Kafka", self._port)
        if not self._controller_port:
            client, self._controller_port = free_ports(2)
            self._port = self._port or client

    def _write_settings(self) -> Path:
        """Write `server.properties` into the data folder."""
        listeners = f"PLAINTEXT://{HOST}:{self._port}"
        controller = f"{HOST}:{self._controller_port}"
        own = {
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "advertised.listeners": listeners,
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": self._data / "topics",
        }
        settings = {**_SETTINGS, **own, **self._overrides}
        lines = [f"{key}={_escaped(str(value))}" for key, value in settings.items()]
        path = self._data / "server.properties"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    async def _format(self, java: Path, libs: Path, settings: Path) -> None:
        """Give the data folder its cluster id, unless it has one."""
        if (self._data / "topics" / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = [*self._jvm(java, libs), "kafka.tools.StorageTool", "format"]
        # One word: an id may begin with a dash, which would read as an option.
        command += [f"--cluster-id={cluster}", "--config", str(settings)]
        tool = self._process("Kafka's storage tool", command)
        try:
            await tool.start()
            await tool.completed(timeout_s=_FORMAT_TIMEOUT_S)
        finally:
            await tool.stop()

    async def _run(self, java: Path, libs: Path, settings: Path) -> None:
        """Start the broker and wait until it reports itself as serving."""
        archive = libs / f"classes-{java_build(java)}.jsa"
        flags: list[str] = []
        if not archive.exists():
            # Written under another name, so that an interrupted dump is never used.
            partial = archive.with_name(f"{archive.name}.partial-{secrets.token_hex(4)}")
            flags = [f"-XX:ArchiveClassesAtExit={partial}"]
            self._archive = (partial, archive)
        command = [*self._jvm(java, libs), *flags, "kafka.Kafka", str(settings)]
        self._broker = self._process("Kafka", command)
        await self._broker.start()
        await self._broker.until(self._serves, timeout_s=_START_TIMEOUT_S)

    def _jvm(self, java: Path, libs: Path) -> list[str]:
        """The command up to the main class, with the class archive if any."""
        archive = libs / f"classes-{java_build(java)}.jsa"
        shared = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        log4j = shipped("compose", "embedded", "log4j2.properties")
        options = [f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{libs}/*"]
        return [str(java), *_JVM, *shared, *options]

    def _process(self, name: str, command: list[str]) -> ManagedProcess:
        return ManagedProcess(
            name,
            command,
            log=self.log,
            remedy=_REMEDY,
            # Else a JVM in the C locale reads no path with a letter beyond ASCII.
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            grace_s=_GRACE_S,
            keep_open=self._keep_open,
        )

    def _keep_archive(self) -> None:
        """Give the class archive its name if the broker ended in order."""
        if self._broker is None or self._archive is None:
            return
        partial, archive = self._archive
        if self._broker.status == _ENDED_IN_ORDER and partial.exists():
            partial.replace(archive)
        partial.unlink(missing_ok=True)
        self._archive = None

    async def _serves(self) -> bool:
        """Whether the broker serves, and not another stack's on the same port."""
        if self._broker is None or await kafka_brokers(self._port) == 0:
            return False
        return self._broker.listens(self._port)


def _escaped(value: str) -> str:
    """A value as Java reads it from a .properties file: Latin-1, backslash escapes."""
    units = memoryview(value.replace("\\", "\\\\").encode("utf-16-le")).cast("H")
    return "".join(chr(unit) if 32 <= unit < 127 else f"\\u{unit:04x}" for unit in units)
