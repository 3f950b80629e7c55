"""`sluice publish`: inputs are opened in their turn, ends are prompt, counts are true."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

import pytest

from pipeline.cli import publish
from pipeline.cli.exits import Exit
from pipeline.cli.inputs import Read, Reading
from pipeline.cli.publishing import Job
from pipeline.client import Client, Unacknowledged
from pipeline.envelope import prompt
from pipeline.ports import Outgoing
from tests.support.cli import Sluice


class Silent:
    """A broker that takes records and acknowledges none."""

    async def send(self, _: Outgoing) -> asyncio.Future[Any]:
        """Take one."""
        return asyncio.get_running_loop().create_future()


class Unheard(Client):
    """A client of that broker; what it does not need of Kafka is left out."""

    async def __aenter__(self) -> Self:
        """Connect to it."""
        self._open = Silent()  # type: ignore[assignment]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""


async def test_what_kafka_did_not_acknowledge_is_not_counted_as_published() -> None:
    """It has no verdict either, which the exit code tells."""
    job = Job(skip_bad=False, wait_s=0.01, quiet=True)
    lines = [Read(where="x:1", message=prompt("hello"))]
    await job.run(Unheard("127.0.0.1:1"), lines, rate_per_s=None)
    assert (job.published, job.unanswered, job.exit_code()) == (0, 1, Exit.FAILURE)


async def test_the_client_tells_which_of_both_is_missing() -> None:
    """By the kind of its error."""
    async with Unheard("127.0.0.1:1") as client:
        with pytest.raises(Unacknowledged, match="nor was it acknowledged"):
            await client.moderate(prompt("hello"), timeout_s=0.01)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe with a name, and its end for writing, which stays open."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)  # does not wait for a reader
    yield path, end
    os.close(end)


@pytest.mark.timeout(30)
def test_an_error_does_not_wait_for_input(
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    pipe: tuple[Path, int],
) -> None:
    """A bad line ends it while whoever writes the pipe is silent and holds it open."""
    path, end = pipe
    monkeypatch.setattr(publish, "Client", Unheard)
    os.write(end, b"\xff\n")
    done = Sluice(capfdbinary)("publish", str(path))
    assert done.code == Exit.USAGE
    assert f"{path}:1: the text is not UTF-8" in done.err


def test_inputs_are_open_one_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many there are, one file is open."""
    opened: list[BinaryIO] = []
    names = [str(tmp_path / f"{number}.txt") for number in range(5)]
    for name in names:
        Path(name).write_text("one\ntwo\n")

    really = publish._open

    def opening(name: str) -> BinaryIO:
        opened.append(really(name))
        return opened[-1]

    monkeypatch.setattr(publish, "_open", opening)
    for count, _ in enumerate(publish._lines(Reading(), names)):
        assert len(opened) == count // 2 + 1
        assert [stream.closed for stream in opened] == [True] * (count // 2) + [False]
    assert opened[-1].closed


def test_an_input_that_cannot_be_read_is_told_before_anything_is_sent(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No client is opened for the others."""
    (tmp_path / "good.txt").write_text("good\n")
    monkeypatch.setattr(publish, "Client", None)
    for name, why in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        done = Sluice(capfdbinary)("publish", str(tmp_path / "good.txt"), str(name))
        assert done.code == Exit.USAGE
        assert f"{name} cannot be read ({why}" in done.err
