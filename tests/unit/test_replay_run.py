"""A replay as a whole, without a broker: counting, stopping, resuming, emitting."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from msgspec.structs import replace

from pipeline import codec, headers
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.events import Action, AuditEvent, Status
from pipeline.ports import Outgoing
from pipeline.replay import emission, report, run, summary
from pipeline.replay.comparison import Compared, LeftOut
from pipeline.replay.depths import Recorded, Result
from pipeline.replay.folder import CHECKPOINT, FLIPS, REPORT, SUMMARY, Folder
from pipeline.replay.policies import OneForAll
from pipeline.replay.run import Run
from pipeline.selection import Selection
from tests.unit import replays


def _log(count: int = 60) -> list[AuditEvent | None]:
    """A log with everything in it: flips, repeats, foreign records, unscanned ones."""
    chance = random.Random(5)
    made: list[AuditEvent | None] = []
    for number in range(count):
        kind = number % 10
        if kind == 3:
            made.append(None)
        elif kind == 7:
            made.append(replays.unscanned_event(number))
        elif kind == 9:
            made.append(made[-2])
        else:
            made.append(replays.event(number, unsafe=round(chance.random(), 3)))
    return made


def _result(made: Run, folder: Folder) -> None:
    found = summary.document(
        made.plan, made.state.passed, made.state.tally, policy="strict", bounds=[], breached=[]
    )
    folder.finish(summary.as_bytes(found), report.render(found))


async def test_every_record_is_counted_once(schemas: codec.Schemas) -> None:
    """Read = unreadable + repeats + compared, and each flip is in the matrix."""
    made = await replays.go(replays.run(60), replays.MemoryReader(_log(), schemas), schemas)
    tally, passed = made.state.tally, made.state.passed
    assert (passed.records, passed.unreadable, tally.repeats) == (60, 6, 6)
    assert tally.compared == 48 == sum(tally.matrix.values())
    assert tally.flips > 0


async def test_a_repeat_is_one_even_where_the_first_was_not_asked_for(
    schemas: codec.Schemas,
) -> None:
    """The first verdict of an input counts: a filter does not promote the second."""
    first = replays.event(0, unsafe=0.1)
    second = replays.event(0, by=replays.policy(replays.STRICT), unsafe=0.99)
    made = replays.run(2, selection=Selection(actions=frozenset({Action.REVIEW})))
    await replays.go(made, replays.MemoryReader([first, second], schemas), schemas)
    tally = made.state.tally
    assert (tally.read, tally.repeats, tally.asked_for) == (2, 1, 0)


@pytest.mark.parametrize("stop_after", [1, 2, 5])
async def test_an_interrupted_replay_ends_like_an_uninterrupted_one(
    schemas: codec.Schemas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Flips, summary and report are the same, byte for byte."""
    monkeypatch.setattr(run, "STEP_RECORDS", 7)
    reader = replays.MemoryReader(_log(), schemas)
    with Folder(tmp_path / "whole", resume=False) as whole:
        _result(await replays.go(replays.run(60, folder=whole), reader, schemas), whole)

    class Stopping(Recorded):
        steps = 0

        async def judge(self, entries: Sequence[object]) -> list[Result]:
            self.steps += 1
            if self.steps == stop_after:
                first.stop()
            return await super().judge(entries)  # type: ignore[arg-type]

    depth = Stopping(OneForAll(replays.policy(replays.STRICT)))
    with Folder(tmp_path / "parts", resume=False) as begun:
        first = replays.run(60, depth, folder=begun)
        await replays.go(first, reader, schemas)
    assert first.done < 60
    with Folder(tmp_path / "parts", resume=True) as parts:
        _result(await replays.go(replays.run(60, folder=parts), reader, schemas), parts)
    for name in (FLIPS, SUMMARY, REPORT):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (tmp_path / "whole" / FLIPS).stat().st_size
    assert not (tmp_path / "parts" / CHECKPOINT).exists()


async def test_an_error_leaves_a_checkpoint_that_goes_on_exactly(
    schemas: codec.Schemas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written after the last checkpoint is not counted twice."""
    monkeypatch.setattr(run, "STEP_RECORDS", 7)
    reader = replays.MemoryReader(_log(), schemas)
    with Folder(tmp_path / "whole", resume=False) as whole:
        _result(await replays.go(replays.run(60, folder=whole), reader, schemas), whole)

    class Failing(Recorded):
        steps = 0

        async def judge(self, entries: Sequence[object]) -> list[Result]:
            self.steps += 1
            if self.steps == 4:
                raise DependencyUnavailable("the guard is away", remedy="")
            return await super().judge(entries)  # type: ignore[arg-type]

    depth = Failing(OneForAll(replays.policy(replays.STRICT)))
    with Folder(tmp_path / "parts", resume=False) as begun, pytest.raises(DependencyUnavailable):
        await replays.go(replays.run(60, depth, folder=begun), reader, schemas)
    with Folder(tmp_path / "parts", resume=True) as parts:
        _result(await replays.go(replays.run(60, folder=parts), reader, schemas), parts)
    for name in (FLIPS, SUMMARY):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


async def test_a_folder_with_an_unfinished_replay_is_not_begun_anew(
    schemas: codec.Schemas, tmp_path: Path
) -> None:
    """The error names --resume; and there is nothing to resume in an empty folder."""
    reader = replays.MemoryReader(_log(), schemas)
    with Folder(tmp_path, resume=False) as folder:
        await replays.go(replays.run(60, folder=folder), reader, schemas)
    with pytest.raises(Misconfigured, match="--resume"):
        Folder(tmp_path, resume=False)
    with pytest.raises(Misconfigured, match="no unfinished"):
        Folder(tmp_path / "other", resume=True)


def test_resuming_with_another_request_names_what_differs() -> None:
    """The result of two requests would be neither's."""
    from pipeline.replay.plan import require_same

    begun = replays.request(margin=0.1).as_json()
    require_same(replays.request(margin=0.1), orjson.loads(orjson.dumps(begun)))
    with pytest.raises(Misconfigured, match="another margin"):
        require_same(replays.request(), begun)


async def test_texts_stay_back_unless_they_are_asked_for(
    schemas: codec.Schemas, tmp_path: Path
) -> None:
    """Neither flips nor summary nor report hold a text without --show-text."""
    reader = replays.MemoryReader([replays.event(unsafe=0.5, text="quokkaberry")], schemas)
    for shown in (False, True):
        with Folder(tmp_path / str(shown), resume=False) as folder:
            made = replays.run(1, folder=folder, show_text=shown)
            _result(await replays.go(made, reader, schemas), folder)
        for name in (FLIPS, SUMMARY, REPORT):
            assert (b"quokkaberry" in (tmp_path / str(shown) / name).read_bytes()) is shown


@pytest.mark.parametrize("shown", [False, True])
async def test_texts_that_are_shown_are_their_owners_alone(
    schemas: codec.Schemas, tmp_path: Path, shown: bool
) -> None:
    """The folder that is made for them, and every file in it, are closed to others."""
    reader = replays.MemoryReader([replays.event(unsafe=0.5)], schemas)
    path, before = tmp_path / "out", os.umask(0o022)
    try:
        with Folder(path, resume=False) as folder:
            made = replays.run(1, folder=folder, show_text=shown)
            assert _modes(path) == ({FLIPS: 0o600} if shown else {FLIPS: 0o644})
            await replays.go(made, reader, schemas)
            half = _modes(path)
            _result(made, folder)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == (0o700 if shown else 0o755)
    assert half.keys() == {FLIPS, CHECKPOINT}
    assert _modes(path).keys() == {FLIPS, SUMMARY, REPORT}
    assert {*half.values(), *_modes(path).values()} == {0o600 if shown else 0o644}


async def test_an_old_result_does_not_leave_its_files_open_to_others(
    schemas: codec.Schemas, tmp_path: Path
) -> None:
    """A folder that was there keeps its mode; what is written over in it is closed."""
    reader = replays.MemoryReader([replays.event(unsafe=0.5)], schemas)
    tmp_path.chmod(0o755)
    for name in (FLIPS, SUMMARY, REPORT):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    with Folder(tmp_path, resume=False) as folder:
        made = replays.run(1, folder=folder, show_text=True)
        _result(await replays.go(made, reader, schemas), folder)
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert set(_modes(tmp_path).values()) == {0o600}


def _modes(path: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mode & 0o777 for each in path.iterdir()}


async def test_emitted_events_are_what_the_worker_would_have_written(
    schemas: codec.Schemas,
) -> None:
    """Byte for byte the live event under the other policy, apart from the chain; marked."""
    strict = replays.policy(replays.STRICT)
    emitted: list[Outgoing] = []

    async def emit(compared: Sequence[Compared]) -> None:
        emitted.extend(emission.record(each, "what-if", schemas) for each in compared)

    log = [replays.event(0, unsafe=0.5), replays.unscanned_event(1), replays.event(2)]
    live = [
        replays.event(0, by=strict, unsafe=0.5),
        replays.unscanned_event(1, by=strict),
        replays.event(2, by=strict),
    ]
    await replays.go(replays.run(3, emit=emit), replays.MemoryReader(log, schemas), schemas)
    assert [record.value for record in emitted] == [codec.encode_audit(e, schemas) for e in live]
    assert {record.topic for record in emitted} == {"what-if"}
    marks = [headers.first(record.headers, headers.REPLAY_OF) for record in emitted]
    assert marks == ["audit:0:0", "audit:0:1", "audit:0:2"]


async def test_the_page_stands_alone_and_escapes(schemas: codec.Schemas) -> None:
    """Nothing is fetched, and a tenant's name is no markup."""
    log = [
        replays.event(number, unsafe=0.5, message={"tenant": name})
        for number, name in enumerate(("<b>bold</b>", "plain"))
    ]
    made = await replays.go(replays.run(2), replays.MemoryReader(log, schemas), schemas)
    found = summary.document(
        made.plan, made.state.passed, made.state.tally, policy="x", bounds=[], breached=["newly"]
    )
    page = report.render(found)
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    assert "Gate breached" in page


async def test_left_out_records_are_counted_by_reason(schemas: codec.Schemas) -> None:
    """With what each reason means, in the summary."""
    event = replays.event()
    odd = replace(event, verdict=replace(event.verdict, status=Status.UNKNOWN))
    made = await replays.go(replays.run(1), replays.MemoryReader([odd], schemas), schemas)
    found = summary.document(
        made.plan, made.state.passed, made.state.tally, policy="x", bounds=[], breached=[]
    )
    assert found["left_out"][LeftOut.UNKNOWN_WORD]["records"] == 1
    assert found["records"]["compared"] == 0
