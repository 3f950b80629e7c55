"""The embedded broker is a real one: it keeps data, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.embedded import EmbeddedFailed, EmbeddedKafka
from pipeline.embedded.jars import find_java, find_maven, java_version, resolve_jars
from pipeline.settings import home

# Where the demo keeps what it resolves: the suite need not fetch it a second time.
HOME = home()

_DEADLINE_S = 30.0


async def publish(servers: str, *values: bytes) -> None:
    """Send the values to topic `t`, partition 0; return once acknowledged."""
    async with AIOKafkaProducer(
        bootstrap_servers=servers, enable_idempotence=True, max_request_size=16_000_000
    ) as producer:
        for value in values:
            await producer.send_and_wait("t", value, partition=0)


async def create_topic(servers: str) -> None:
    """Create topic `t` with one partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("t", 1, 1)])
    finally:
        await admin.close()


async def read(servers: str, count: int) -> list[bytes]:
    """The first `count` values of topic `t`, in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(_DEADLINE_S):
        consumer.assign([TopicPartition("t", 0)])
        return [(await consumer.getone()).value for _ in range(count)]


async def join_group(servers: str) -> int:
    """Join a group on topic `t` with a one-second session; partitions given."""
    consumer = AIOKafkaConsumer(
        "t", bootstrap_servers=servers, group_id="g", session_timeout_ms=1000,
        heartbeat_interval_ms=300,
    )  # fmt: skip
    async with consumer, asyncio.timeout(_DEADLINE_S):
        while not consumer.assignment():
            await asyncio.sleep(0.02)
        return len(consumer.assignment())


def is_listening(servers: str) -> bool:
    """Whether something accepts connections at the address."""
    host, _, port = servers.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def fake_program(folder: Path, name: str, script: str) -> None:
    """Put an executable shell script called `name` into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_it_serves_from_start_to_stop(tmp_path: Path) -> None:
    """Topics, 15 MB messages and short-session groups work; then it is gone."""

    async def scenario() -> tuple[int, str]:
        async with EmbeddedKafka(HOME, tmp_path) as kafka:
            servers, pid = kafka.bootstrap_servers, kafka.pid
            await create_topic(servers)
            await publish(servers, b"first", b"x" * 15_000_000)
            assert [len(value) for value in await read(servers, 2)] == [5, 15_000_000]
            assert await join_group(servers) == 1
        assert kafka.pid is None
        assert pid is not None
        return pid, servers

    pid, servers = asyncio.run(scenario())
    assert not psutil.pid_exists(pid)
    assert not is_listening(servers)


def test_killed_or_stopped_it_comes_back_with_its_data(tmp_path: Path) -> None:
    """After SIGKILL, after a stop: same address, every acknowledged message."""

    async def scenario() -> list[bytes]:
        async with EmbeddedKafka(HOME, tmp_path) as kafka:
            servers = kafka.bootstrap_servers
            await create_topic(servers)
            await publish(servers, b"before")
            await kafka.kill()
            assert not is_listening(servers)
            await kafka.start()
            await publish(servers, b"after the kill")
            await kafka.stop()
            await kafka.start()
            await publish(servers, b"after the stop")
            assert kafka.bootstrap_servers == servers
        # Another object on the same data has other ports, its controller's too.
        async with EmbeddedKafka(HOME, tmp_path) as kafka:
            return await read(kafka.bootstrap_servers, 3)

    assert asyncio.run(scenario()) == [b"before", b"after the kill", b"after the stop"]


def test_it_does_not_outlive_an_owner_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL of the owner ends the broker."""
    owner = textwrap.dedent(
        f"""
        import asyncio, pathlib
        from pipeline.embedded import EmbeddedKafka
        async def main():
            home, data = pathlib.Path({str(HOME)!r}), pathlib.Path({str(tmp_path)!r})
            async with EmbeddedKafka(home, data) as kafka:
                print(kafka.pid, flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        broker = psutil.Process(int(process.stdout.readline()))
        process.kill()
    gone, alive = psutil.wait_procs([broker], timeout=_DEADLINE_S)
    assert (gone, alive) == ([broker], [])


def test_a_folder_of_any_letters_keeps_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Topics lie in the folder that was named, also in the C locale, and are found again."""
    monkeypatch.setenv("LC_ALL", "C")
    folder = tmp_path / "my dätä"

    async def scenario() -> list[bytes]:
        async with EmbeddedKafka(HOME, folder) as kafka:
            await create_topic(kafka.bootstrap_servers)
            await publish(kafka.bootstrap_servers, b"1")
        async with EmbeddedKafka(HOME, folder) as kafka:
            return await read(kafka.bootstrap_servers, 1)

    assert asyncio.run(scenario()) == [b"1"]
    assert (folder / "topics" / "t-0").is_dir()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """A port that another process listens on is an error that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedFailed, match=f"cannot listen on 127.0.0.1:{port}"):
            asyncio.run(EmbeddedKafka(HOME, tmp_path, port).start())


def test_a_broker_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    """Damaged data ends the start with the broker's own words, in seconds."""

    async def scenario() -> None:
        async with EmbeddedKafka(HOME, tmp_path):
            pass
        (tmp_path / "topics" / "meta.properties").write_text("version=1\nnode.id=7\n")
        await EmbeddedKafka(HOME, tmp_path).start()

    before = time.monotonic()
    with pytest.raises(EmbeddedFailed, match="Kafka ended with status 1 while starting") as caught:
        asyncio.run(scenario())
    assert "cluster.id was not found" in caught.value.tail
    assert str(tmp_path / "broker.log") in caught.value.remedy
    assert time.monotonic() - before < _DEADLINE_S


def test_missing_java_and_maven_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java or Maven the error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedFailed, match=r"Java is not on PATH\. Install a JDK 17"):
        asyncio.run(EmbeddedKafka(tmp_path / "home", tmp_path / "data").start())
    with pytest.raises(EmbeddedFailed, match=r"Maven is not on PATH\. Install Apache Maven"):
        find_maven()


@pytest.mark.parametrize(("said", "version"), [("1.8.0_401", 8), ("11.0.2", 11), ("25", 25)])
def test_the_jdk_is_recognised(tmp_path: Path, said: str, version: int) -> None:
    """Old and new ways of writing a Java version are understood."""
    fake_program(tmp_path, "java", f"echo 'openjdk version \"{said}\"' >&2")
    assert java_version(tmp_path / "java") == version


def test_an_old_jdk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JDK that Kafka 4 cannot run on is refused by its version."""
    fake_program(tmp_path, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EmbeddedFailed, match="is version 11"):
        find_java()


def test_maven_is_quoted_and_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a jar cannot be had, Maven's error is shown and nothing is kept."""
    fake_program(tmp_path / "bin", "mvn", "echo '[ERROR] no route to the mirror'; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    pom = tmp_path / "pom.xml"
    pom.write_text("<project/>")
    with pytest.raises(EmbeddedFailed, match="no route to the mirror") as caught:
        asyncio.run(resolve_jars(tmp_path, pom, lambda _line: None))
    assert "Check the network" in caught.value.remedy
    assert list((tmp_path / "kafka").glob("libs/*")) == []


async def test_a_cluster_id_may_begin_with_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One random id in 64 begins with a dash; the storage tool must not take it for an option."""
    dashed = uuid.UUID(bytes=b"\xf8" + bytes(15))
    monkeypatch.setattr("uuid.uuid4", lambda: dashed)
    async with EmbeddedKafka(HOME, tmp_path) as broker:
        assert broker.pid is not None
