"""Specification of what is measured: guards, recorded scores, programs, endpoints."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from pipeline.asking import CallLimits
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.evaluate import command, recorded, runs
from pipeline.evaluate.contenders import Answer, Pace, Point
from pipeline.evaluate.endpoint import EndpointFilter
from pipeline.evaluate.items import DataSet, Head, Item
from pipeline.evaluate.served import ServedGuard
from pipeline.health import Health
from pipeline.scoring import Guard, Scorer
from pipeline.selftest import VerifiedScorer

from .fakes import FakeClock, ScriptedClassifier, away, by_words

ITEMS = [Item(id=str(n), text=text) for n, text in enumerate(["fine", "unsafe", "fine fine"])]
KEY = "key-that-must-not-be-shown"
ECHO = """
import json, sys
for line in sys.stdin:
    text = json.loads(line)["text"]
    print(json.dumps({"score": 0.9 if "unsafe" in text else 0.1}), flush=True)
"""


class Served:
    """A server that states no digest."""

    async def served_digest(self, _guard: str) -> None:
        """Nothing, as servers without the parameter do."""


def served(guard: Guard, classifier: ScriptedClassifier, point: str = "balanced") -> ServedGuard:
    """A guard of the tests behind the real scorer."""
    limits = CallLimits(max_rows=4, max_tokens=1000, max_windows=8, in_flight=2)
    scorer = Scorer([guard], classifier, limits, FakeClock())
    return ServedGuard(guard.card, VerifiedScorer(scorer, Served(), Health(("guard",))), point)


def program(tmp_path: Path, code: str) -> str:
    """A command line that runs some Python."""
    path = tmp_path / "filter.py"
    path.write_text(code)
    return f"mine={sys.executable} {path}"


@contextmanager
def endpoint(*replies: tuple[int, object]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A moderation endpoint giving these replies, the last for ever; and what it was sent."""
    left, seen = list(replies), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({**body, "path": self.path, "key": self.headers.get("Authorization", "")})
            status, reply = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            if isinstance(reply, bytes):  # sent as it is, in place of a whole answer
                self.flush_headers()
                self.wfile.write(reply)
                return
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, format: str, *_: object) -> None:
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def moderation(score: float) -> dict[str, object]:
    """A reply as OpenAI's endpoint gives it."""
    scores = {"hate": score, "sexual": 0.01, "harassment": 0.02}
    return {"results": [{"flagged": score > 0.3, "category_scores": scores}]}


async def test_a_guard_answers_through_the_workers_own_scorer(guard: Guard) -> None:
    """Scores come calibrated, by label, in the order of the items."""
    answers = await served(guard, ScriptedClassifier()).answer("any", ITEMS)
    assert [round(one.scores["unsafe"], 2) for one in answers] == [0.02, 0.98, 0.02]


async def test_a_guard_that_stays_away_ends_the_evaluation(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost call is tried again; after the last attempt its error is told."""
    monkeypatch.setattr("pipeline.evaluate.served._FIRST_WAIT_S", 0.001)
    back = served(guard, ScriptedClassifier([by_words, away, by_words]))
    assert len(await back.answer("any", ITEMS)) == 3
    with pytest.raises(DependencyUnavailable):
        await served(guard, ScriptedClassifier([away])).answer("any", ITEMS)


def test_an_operating_point_must_be_on_the_card(guard: Guard) -> None:
    """Another name is refused with those there are."""
    with pytest.raises(Misconfigured, match="no operating point 'bold'"):
        served(guard, ScriptedClassifier(), "bold")


def test_a_head_flags_when_one_of_its_labels_crosses_its_own_threshold() -> None:
    """Each label has its own threshold; a filter's own decision comes next."""
    point = Point(name="p", thresholds={"unsafe": 0.6, "injection": 0.9, "jailbreak": 0.2})
    answer = Answer(scores={"unsafe": 0.5, "injection": 0.8, "jailbreak": 0.1})
    assert [point.flags(answer, head) for head in Head] == [False, False, False]
    assert answer.score(Head.ANY) == 0.8
    bare = Point(name="q")
    assert bare.flags(Answer(scores={"score": 0.2}, flagged=True), Head.HAZARD)
    assert not bare.flags(Answer(scores={"score": 0.9}, flagged={"hazard": False}), Head.HAZARD)
    assert bare.flags(Answer(scores={"score": 0.5}), Head.ATTACK)


async def test_recorded_scores_are_found_by_set_and_id(tmp_path: Path) -> None:
    """A line of the set wins over one of any set; other ids are unscored."""
    path = tmp_path / "scores.jsonl"
    path.write_text(
        '{"id": "0", "score": 0.1}\n{"id": "0", "set": "b", "score": 0.2}\n'
        '{"id": 1, "guard": "other", "scores": {"unsafe": 0.7}, "flagged": true}\n'
    )
    first, other = recorded.load(str(path), 0.5)
    assert (first.name, other.name) == ("scores", "other")
    assert (await first.answer("a", ITEMS))[0].scores == {"score": 0.1}
    assert (await first.answer("b", ITEMS))[0].scores == {"score": 0.2}
    assert [one.problem for one in await other.answer("a", ITEMS)] == [
        "not-recorded", "", "not-recorded",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"score": 1}', "scores.jsonl:1: field 'id' is missing"),
        ('{"id": 1}', "field 'score' is not a number from 0 to 1"),
        ('{"id": 1, "score": 3}', "field 'score' is not a number from 0 to 1"),
        ('{"id": 1, "scores": 3}', "field 'scores' is not an object"),
        ('{"id": 1, "score": 1, "flagged": "x"}', "field 'flagged' is neither"),
        ('{"id": 1, "score": 1, "flagged": {"hazard": "no"}}', "field 'flagged' is neither"),
        (
            '{"id": 1, "score": 1}\n{"id": 1, "score": 0}',
            "jsonl:2: field 'id' stands on an earlier",
        ),
    ],
)
def test_a_wrong_line_of_scores_is_named(tmp_path: Path, line: str, told: str) -> None:
    """File, line and field of recorded scores."""
    path = tmp_path / "scores.jsonl"
    path.write_text(line)
    with pytest.raises(Misconfigured) as caught:
        recorded.load(str(path), 0.5)
    assert told in str(caught.value)


def test_a_path_of_recorded_scores_may_hold_an_equals_sign(tmp_path: Path) -> None:
    """A name is what stands before the first one, where that is no folder and no file."""
    folder = tmp_path / "lr=1"
    folder.mkdir()
    (folder / "r.jsonl").write_text('{"id": 1, "score": 1}')
    for spec, name in ((f"{folder}/r.jsonl", "r"), (f"mine={folder}/r.jsonl", "mine")):
        assert [one.name for one in recorded.load(spec, 0.5)] == [name]
    with pytest.raises(Misconfigured, match="--recorded"):
        recorded.load(f"{folder}/none.jsonl", 0.5)


def test_categories_stand_for_an_unsafe_that_a_guard_does_not_score() -> None:
    """Their highest is the hazard score, and each has its own threshold."""
    point = Point(name="q", thresholds={"S10": 0.7, "S1": 0.2, "injection": 0.1})
    answer = Answer(scores={"S10": 0.6, "S1": 0.1, "injection": 0.9})
    assert (answer.score(Head.HAZARD), answer.score(Head.ANY)) == (0.6, 0.9)
    assert not point.flags(answer, Head.HAZARD)
    assert point.flags(Answer(scores={"S1": 0.2}), Head.HAZARD)
    assert Answer(scores={"S1": 0.9, "unsafe": 0.3}).score(Head.HAZARD) == 0.3


async def test_a_command_answers_line_by_line_and_is_gone_afterwards(tmp_path: Path) -> None:
    """Thousands of lines pass without either pipe filling; nothing is left running."""
    many = [Item(id=str(n), text="unsafe " * 200 if n % 2 else "fine") for n in range(2000)]
    before = set(psutil.Process().children(recursive=True))
    async with command.start(program(tmp_path, ECHO), 0.5) as found:
        answers = await found.answer("any", many)
        started = set(psutil.Process().children(recursive=True)) - before
    assert found.name == "mine"
    assert [one.scores["score"] for one in answers[:2]] == [0.1, 0.9]
    assert len(answers) == 2000
    assert started
    assert not any(child.is_running() for child in started)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('half')", "answer 1 is not JSON"),
        ("print('7', flush=True)", "field 'score' is not a number from 0 to 1"),
        ("pass", "ended before it had answered"),
    ],
)
async def test_a_command_that_answers_nonsense_is_told(
    tmp_path: Path, code: str, told: str
) -> None:
    """What it did wrong and what it must do."""
    with pytest.raises(Misconfigured, match=told):
        async with command.start(program(tmp_path, code), 0.5) as found:
            await found.answer("any", ITEMS)


BEFORE = "print(0, flush=True)" + ECHO
AFTER = ECHO + "print(0.5)"
TWICE = ECHO.replace("    print(", "    print(0.3)\n    print(")
REVERSED = """
import json, sys
read = [json.loads(line) for line in (sys.stdin.readline() for _ in range(3))]
for one in reversed(read):
    print(json.dumps({"id": one["id"], "score": 0.5}), flush=True)
"""


@pytest.mark.parametrize("code", [BEFORE, AFTER, TWICE], ids=["before", "after", "twice"])
async def test_a_command_with_a_line_too_many_is_told(tmp_path: Path, code: str) -> None:
    """One more number anywhere gives every later item another's score."""
    with pytest.raises(Misconfigured, match="mine wrote more lines than it was asked for"):
        async with command.start(program(tmp_path, code), 0.5) as found:
            await found.answer("any", ITEMS)


async def test_a_command_that_answers_in_another_order_is_told(tmp_path: Path) -> None:
    """An id in an answer must be that of the item asked about."""
    with pytest.raises(Misconfigured, match="mine: answer 1: field 'id' is not that"):
        async with command.start(program(tmp_path, REVERSED), 0.5) as found:
            await found.answer("any", ITEMS)


async def test_a_command_may_repeat_the_id_and_end_with_an_empty_line(tmp_path: Path) -> None:
    """As a number or as text; a blank at the end is no answer."""
    code = REVERSED.replace("reversed(read)", "read").replace('one["id"]', 'int(one["id"])')
    async with command.start(program(tmp_path, code + "print()"), 0.5) as found:
        answers = await found.answer("any", ITEMS)
    assert [one.scores for one in answers] == [{"score": 0.5}] * 3


async def test_what_went_wrong_before_is_told_rather_than_a_line_too_many(tmp_path: Path) -> None:
    """The first error is the cause."""
    with pytest.raises(Misconfigured, match="answer 1 is not JSON"):
        async with command.start(program(tmp_path, "print('half')\nprint(1)"), 0.5) as found:
            await found.answer("any", ITEMS)


async def test_an_endpoint_gives_scores_by_category() -> None:
    """Its categories become ours, its highest score the hazard; its flag decides."""
    with endpoint((200, moderation(0.4))) as (url, seen):
        (answer,) = await EndpointFilter(url, "m-1", KEY).answer("any", ITEMS[:1])
    assert answer.scores == {"unsafe": 0.4, "S10": 0.4, "S12": 0.01}
    assert answer.flagged is True
    assert seen == [
        {"input": "fine", "model": "m-1", "path": "/v1/moderations", "key": f"Bearer {KEY}"}
    ]


async def test_a_busy_endpoint_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 429 and 5xx are waited out; what stays away is unavailable."""
    monkeypatch.setattr("pipeline.evaluate.endpoint._LONGEST_WAIT_S", 0.001)
    with endpoint((429, {}), (503, {}), (200, moderation(0.1))) as (url, seen):
        assert not (await EndpointFilter(url, "", "").answer("any", ITEMS[:1]))[0].flagged
    assert len(seen) == 3
    with endpoint((503, {})) as (url, _), pytest.raises(DependencyUnavailable, match="status 503"):
        await EndpointFilter(url, "", "").answer("any", ITEMS[:1])


@pytest.mark.parametrize(
    ("status", "reply", "told"),
    [(401, {}, "status 401"), (302, {}, "status 302"), (200, {"results": []}, "not a moderation")],
)
async def test_an_endpoint_that_refuses_is_told_without_the_key(
    status: int, reply: object, told: str
) -> None:
    """Refusals, redirects and other shapes end it at once; the key is never said."""
    with endpoint((status, reply)) as (url, seen), pytest.raises(Misconfigured) as caught:
        await EndpointFilter(url, "m", KEY).answer("any", ITEMS[:1])
    assert told in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(seen) == 1


@pytest.mark.parametrize("url", ["http://example.org/v1", "ftp://example.org", "https://a:b@c/v1"])
def test_a_url_that_would_show_the_key_is_refused(url: str) -> None:
    """No key over plain http beyond this machine, no password in the URL."""
    with pytest.raises(Misconfigured, match="--endpoint"):
        EndpointFilter(url, "m", KEY)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:abc/v1", "http://[::1/v1", "http://127.0.0.1/a b", "http://127.0.0.1/ä",
     "http://127.0.0.1:99999/v1", "http://127.0.0.1/v1\n"],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_before_the_run(url: str) -> None:
    """A port that is no number, an open bracket, a space: told, and not said again."""
    with pytest.raises(Misconfigured, match="--endpoint is not") as caught:
        EndpointFilter(url, "m", "")
    assert url not in str(caught.value)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", " "])
async def test_a_key_may_end_with_the_line_that_it_was_read_from(end: str) -> None:
    """As a file with one line has it."""
    with endpoint((200, moderation(0.1))) as (url, seen):
        await EndpointFilter(url, "", KEY + end).answer("any", ITEMS[:1])
    assert seen[0]["key"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", [f"{KEY}\n{KEY}", f"{KEY}ü", f"{KEY}\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(key: str) -> None:
    """The library's own error would say it whole."""
    with pytest.raises(Misconfigured, match="holds characters") as caught:
        EndpointFilter("https://example.org/v1", "m", key)
    assert KEY not in str(caught.value)


async def test_an_endpoint_of_this_machine_is_asked_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plain http through a proxy would show it the key."""
    with endpoint((200, {})) as (proxy, through), endpoint((200, moderation(0.1))) as (url, seen):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        await EndpointFilter(url, "", KEY).answer("any", ITEMS[:1])
    assert (len(seen), through) == (1, [])


@pytest.mark.parametrize("path", ["", "/", "/moderations"])
async def test_a_query_stays_behind_the_path(path: str) -> None:
    """Some hosts want the version of their interface in it."""
    with endpoint((200, moderation(0.1))) as (url, seen):
        await EndpointFilter(f"{url}{path}?api-version=1", "", "").answer("any", ITEMS[:1])
    assert seen[0]["path"] == "/v1/moderations?api-version=1"


@pytest.mark.parametrize(
    "reply", [b"Content-Length: 500\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"]
)
async def test_a_reply_that_is_cut_off_is_asked_for_again(
    reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection went, not the endpoint."""
    monkeypatch.setattr("pipeline.evaluate.endpoint._LONGEST_WAIT_S", 0.001)
    with endpoint((200, reply), (200, moderation(0.1))) as (url, seen):
        assert not (await EndpointFilter(url, "", "").answer("any", ITEMS[:1]))[0].flagged
    assert len(seen) == 2


async def test_a_server_that_speaks_no_http_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another service on the port is told in one line."""
    monkeypatch.setattr("pipeline.evaluate.endpoint._LONGEST_WAIT_S", 0.001)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(DependencyUnavailable, match="does not answer"):
            await EndpointFilter(url, "", "").answer("any", ITEMS[:1])


@pytest.mark.parametrize(
    "result",
    [
        {"flagged": True, "category_scores": {"hate": 87.0}},
        {"flagged": True, "category_scores": {"hate": "nan", "sexual": 0.9}},
        {"flagged": True, "category_scores": {"hate": True}},
        {"flagged": "false", "category_scores": {"hate": 0.1}},
        {"flagged": None, "category_scores": {}},
    ],
)
async def test_a_reply_with_other_values_is_no_result(result: object) -> None:
    """Percentages, words for numbers, words for yes and no: all would be measured wrong."""
    wrong = pytest.raises(Misconfigured, match="not a moderation result")
    with endpoint((200, {"results": [result]})) as (url, _), wrong:
        await EndpointFilter(url, "", "").answer("any", ITEMS[:1])


async def test_an_endpoint_that_is_waited_for_can_be_left_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C ends the wait that an endpoint asked for: no thread sleeps it out."""
    waiting = asyncio.Event()

    async def wait(_seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("pipeline.evaluate.endpoint.asyncio.sleep", wait)
    with endpoint((503, {})) as (url, seen):
        asked = asyncio.create_task(EndpointFilter(url, "", "").answer("any", ITEMS[:1]))
        waits = asyncio.create_task(waiting.wait())
        await asyncio.wait({asked, waits}, return_when=asyncio.FIRST_COMPLETED)
        assert waits.done()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert len(seen) == 1


async def test_latencies_are_those_of_items_asked_alone() -> None:
    """In a batch an item's time has the others' in it: a sample is asked again, one at a time."""
    items = [Item(id=str(n), text="x", hazard=False) for n in range(8)]
    data = DataSet(name="d", format="jsonl", items=items, heads=(Head.HAZARD,))
    with endpoint((200, moderation(0.1))) as (url, seen):
        found = await runs.run(EndpointFilter(url, "", ""), data, lambda _: None, sampled=3)
    assert [len(one.latencies_s) for one in found.speeds] == [3]
    assert len(seen) == 8 + 3


async def test_a_run_keeps_the_sets_order_and_times_each_length(guard: Guard) -> None:
    """Answers stand at their items' places though lengths are asked apart."""
    texts = ["unsafe", "fine " * 60, "fine", "unsafe " * 60]
    items = [Item(id=str(n), text=text, hazard=True) for n, text in enumerate(texts)]
    data = DataSet(name="d", format="jsonl", items=items, heads=(Head.HAZARD,))
    told: list[int] = []
    found = await runs.run(served(guard, ScriptedClassifier()), data, told.append, sampled=2)
    scores = [round(one.scores["unsafe"]) for one in found.answers]
    assert scores == [1, 0, 0, 1]
    assert [(one.length, one.items, len(one.latencies_s)) for one in found.speeds] == [
        ("<= 64", 2, 2), ("<= 1024", 2, 2),
    ]  # fmt: skip
    assert sum(told) == 4


async def test_a_set_without_one_score_is_refused(tmp_path: Path) -> None:
    """Recorded ids of another set are told, not measured as zeros."""
    path = tmp_path / "scores.jsonl"
    path.write_text('{"id": "elsewhere", "score": 1}')
    (found,) = recorded.load(str(path), 0.5)
    assert found.pace == Pace(timed=False)
    data = DataSet(name="d", format="jsonl", items=ITEMS, heads=(Head.HAZARD,))
    with pytest.raises(Misconfigured, match="gave no score for set d"):
        await runs.run(found, data, lambda _: None, sampled=0)
