"""A filter that is a program: a line of JSON in, a line with its score out."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from pipeline.errors import Misconfigured
from pipeline.evaluate import recorded
from pipeline.evaluate.contenders import SCORE, Answer, Pace, Point
from pipeline.evaluate.items import Item
from pipeline.evaluate.reading import Row

_LINE_S: Final = 120.0
_LIMIT_BYTES: Final = 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_GRACE_S: Final = 5.0
_RELAY: Final = Path(__file__).with_name("relay.py")
_REMEDY: Final = 'It must answer each line with a number or {"score": ...}, and flush'
_ID: Final = "It must answer in the order that it reads in, and give the item's id or none"
_ORDER: Final = "It must write one line for each that it reads, in the same order, and no other"


class CommandFilter:
    """A running program; answers come in the order asked."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, point: Point) -> None:
        self.name = name
        self.point = point
        self.pace = Pace(in_flight=1)
        self.facts: Mapping[str, str] = {"kind": "command"}
        self._child = child

    async def answer(self, _data: str, items: Sequence[Item]) -> list[Answer]:
        """Its scores; raises Misconfigured when it ends, hangs or answers nonsense."""
        asked = asyncio.create_task(self._ask(items))
        try:
            return [await self._read(number, item) for number, item in enumerate(items, start=1)]
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def _ask(self, items: Sequence[Item]) -> None:
        """Write beside the reading, so that neither pipe can fill for good."""
        assert self._child.stdin is not None
        for item in items:
            line = {"id": item.id, "text": item.text, "kind": item.kind, "prompt": item.prompt}
            self._child.stdin.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            await self._child.stdin.drain()

    async def _read(self, number: int, item: Item) -> Answer:
        assert self._child.stdout is not None
        try:
            line = await asyncio.wait_for(self._child.stdout.readline(), _LINE_S)
        except TimeoutError:
            raise Misconfigured(
                f"{self.name} gave no line in {_LINE_S:g} s", remedy=_REMEDY
            ) from None
        except ValueError:
            raise Misconfigured(f"{self.name} wrote an endless line", remedy=_REMEDY) from None
        if not line:
            raise Misconfigured(
                f"{self.name} ended before it had answered",
                remedy="It must read until its input ends; what it said stands above",
            )
        return parse(f"{self.name}: answer {number}", line, item.id)


def parse(where: str, line: bytes, item_id: str) -> Answer:
    """A line as an answer: a number, or an object as recorded scores have it.

    Raises Misconfigured for another shape, and for an id that is another item's.
    """
    try:
        found: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise Misconfigured(f"{where} is not JSON", remedy=_REMEDY) from None
    fields = found if isinstance(found, dict) else {SCORE: found}
    row = Row(where=where, number=0, fields=fields)
    if row.optional("id") not in {"", item_id}:
        row.wrong("id", "is not that of the item asked about", _ID)
    return recorded.answer_of(row)


@asynccontextmanager
async def start(spec: str, threshold: float) -> AsyncIterator[CommandFilter]:
    """Run `[NAME=]COMMAND` until the block ends; raises Misconfigured if it cannot.

    Raises it at the end, too, when more lines came than items were asked about: they
    may have stood in for answers.
    """
    name, words = _words(spec)
    try:
        # The relay ends the program, and all it started, however this process ends.
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_RELAY), *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LIMIT_BYTES,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Misconfigured(f"--command cannot run ({error.strerror})", remedy=_REMEDY) from error
    point = Point(name=f"its own decision, or score {threshold:g}", otherwise=threshold)
    try:
        yield CommandFilter(name, child, point)
    except BaseException:
        await _end(child)
        raise
    if await _end(child):
        raise Misconfigured(f"{name} wrote more lines than it was asked for", remedy=_ORDER)


def _words(spec: str) -> tuple[str, list[str]]:
    """The name, by default the program's, and the command's words."""
    name, equals, rest = spec.partition("=")
    if not equals or not name.replace("-", "").replace("_", "").isalnum():
        name, rest = "", spec
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise Misconfigured(f"--command cannot be split ({error})", remedy="Close quotes") from None
    if not words:
        raise Misconfigured("--command is empty", remedy="Name a program")
    return name or Path(words[0]).name, words


async def _end(child: asyncio.subprocess.Process) -> bool:
    """Close its input, and end what has not ended by itself within the grace.

    Says whether there were lines that nobody had read.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    unread = asyncio.create_task(_unread(child.stdout))
    for end in (child.terminate, child.kill):
        try:
            await asyncio.wait_for(child.wait(), _GRACE_S)
        except TimeoutError:
            end()
    await child.wait()
    # What the program has started may hold the pipe open for longer than it lives.
    done, _ = await asyncio.wait({unread}, timeout=_GRACE_S)
    unread.cancel()
    return bool(done) and unread.result()


async def _unread(output: asyncio.StreamReader) -> bool:
    """Whether anything but blanks comes until the end of the output."""
    found = False
    while chunk := await output.read(_CHUNK_BYTES):
        found = found or bool(chunk.strip())
    return found
