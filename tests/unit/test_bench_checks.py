"""The benchmark refuses figures of work that was not done, and says what it lacks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from loadtest.bench import contenders, guard, messages, outputs, session, table, tokenising, work
from loadtest.bench.figures import Lap
from loadtest.bench.session import Plan, Report
from pipeline import codec, headers, settings, wiring
from pipeline.errors import Misconfigured
from pipeline.events import Coverage, GuardRef, Judgement, Position, Status, Verdict
from tests.support.golden_records import VERDICT

MACHINE = {
    "processor": "a processor",
    "cores": 2,
    "load_average": [0.1, 0.1, 0.1],
    "python": "3.11",
    "python_loop_ms": 12.0,
    "versions": {"aiokafka": "0.14.0"},
}

JUDGEMENT = Judgement(
    guard=GuardRef(name="standin", version="1", digest="sha256:0"),
    scores={"unsafe": 0.02},
    coverage=Coverage(scanned_tokens=3, total_tokens=3),
    template_digest="sha256:0",
    windows=1,
    batch_rows=1,
    queued_s=0.0,
    inference_s=0.0,
)


def verdicts(count: int) -> list[Verdict]:
    """Scored verdicts of as many different messages."""
    return [
        structs.replace(VERDICT, message_id=f"m-{number}", status=Status.SCORED)
        for number in range(count)
    ]


def report(**change: object) -> Report:
    """Two contenders, one of them too short to measure."""
    base = {
        "plan": Plan(messages=100, rounds=1),
        "environment": MACHINE,
        "value_bytes": 275,
        "titles": {"sluice": "the worker", "raw": "the loop"},
        "turns": [{"sluice": Lap(cpu_us=60.0, per_s=5000.0, tokenise_us=10.0), "raw": None}],
        "absent": {"quix": "not installed"},
    }
    return Report(**(base | change))  # type: ignore[arg-type]


def test_complete_outputs_pass() -> None:
    """One scored verdict for each message."""
    outputs.require("raw", "verdicts", verdicts(3), 3)


@pytest.mark.parametrize(
    "found",
    [
        verdicts(2),
        verdicts(4),
        [*verdicts(2), verdicts(1)[0]],
        [*verdicts(2), structs.replace(VERDICT, message_id="m-2", status=Status.UNSCANNED)],
    ],
    ids=["one lost", "one too many", "one twice, one lost", "one unscanned"],
)
def test_a_contender_that_skipped_work_has_no_figures(found: list[Verdict]) -> None:
    """Fewer, more, repeated or unscored outcomes end the benchmark, naming the contender."""
    with pytest.raises(Misconfigured, match="contender raw"):
        outputs.require("raw", "verdicts", found, 3)


async def test_a_missing_peer_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """No venv, or one without the library: a reason, not a failure."""
    quix = next(each for each in contenders.ALL if each.name == contenders.QUIX)
    nowhere = replace(quix, python=str(tmp_path / "python"))
    assert "make bench" in (await contenders.why_absent(nowhere) or "")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho \"No module named 'quixstreams'\" >&2\nexit 1\n")
    broken.chmod(0o755)
    assert "quixstreams" in (await contenders.why_absent(replace(quix, python=str(broken))) or "")


def test_the_table_states_what_is_subtracted_and_what_is_missing() -> None:
    """Gross, tokenising, net; a contender without a figure; a target; who was left out."""
    text = "\n".join(table.lines(report()))
    assert "60.0" in text
    assert "-10.0" in text
    assert "50.0" in text
    assert "too short to measure" in text
    assert "MISSED  worker CPU a message <= 45 us" in text
    assert "left out: quix (not installed)" in text
    assert "WARNING" not in text


def test_a_busy_machine_is_named() -> None:
    """A load average that other work made is said before any figure."""
    busy = {**MACHINE, "load_average": [1.9, 0.0, 0.0]}
    assert "load average 1.9 on 2 cores" in (table.busy(busy) or "")
    assert table.busy(MACHINE) is None


def test_json_holds_every_turn() -> None:
    """Not only the medians: what ran beside what, what was dropped and what was measured."""
    document = report().as_json()
    lap = {"cpu_us": 60.0, "per_s": 5000.0, "tokenise_us": 10.0}
    assert document["turns"] == [{"sluice": lap, "raw": None}]
    assert document["standings"]["sluice"]["net_us"] == 50.0


@pytest.mark.parametrize("number", range(6))
def test_every_peer_runs_beside_the_worker(number: int) -> None:
    """Once a round, directly before it or after; one more lap of the worker is enough."""
    turns = session.turns(contenders.ALL, number)
    names = [[each.name for each in turn] for turn in turns]
    for turn in names:
        at = turn.index("sluice")
        assert set(turn) == {"sluice", *turn[max(0, at - 1) : at + 2]}
    assert sorted(name for turn in names for name in turn) == [
        "faust", "quix", "raw", "sluice", "sluice",
    ]  # fmt: skip


@pytest.mark.parametrize("peers", [("raw",), ("faust", "raw"), ("faust", "raw", "quix")])
def test_no_peer_is_always_first(peers: tuple[str, ...]) -> None:
    """Over two rounds a peer each has run before the worker as often as after it."""
    chosen = [each for each in contenders.ALL if each.name in ("sluice", *peers)]
    rounds = 2 * len(peers)
    turns = [turn for number in range(rounds) for turn in session.turns(chosen, number)]
    before = Counter(turn[0].name for turn in turns)
    assert {name: before[name] for name in peers} == dict.fromkeys(peers, len(peers))


@pytest.mark.parametrize(
    ("only", "turns"),
    [
        (["sluice"], [["sluice"]]),
        (["sluice", "raw"], [["sluice", "raw"]]),
        (["faust", "raw", "quix"], [["raw", "faust"], ["quix"]]),
    ],
)
def test_whoever_takes_part_runs_once(only: list[str], turns: list[list[str]]) -> None:
    """The worker without peers, one peer, peers without the worker."""
    chosen = [each for each in contenders.ALL if each.name in only]
    assert [[each.name for each in turn] for turn in session.turns(chosen, 0)] == turns


def test_messages_are_the_same_in_every_run_and_of_the_stated_size() -> None:
    """Equal for equal counts, ids all different, about 300 bytes as Avro."""
    made = messages.make(50)
    assert made == messages.make(50)
    assert len({message.message_id for message in made}) == 50
    schemas = wiring.load_schemas()
    assert all(240 <= len(codec.encode_message(each, schemas)) <= 320 for each in made)


def test_tokenising_costs_something(tmp_path: Path) -> None:
    """It is measured with the guard's own tokenizer, as the worker uses it."""
    repository = guard.make(tmp_path)
    given = settings.load({"guards": {"repository": repository, "names": [guard.NAME]}})
    assert tokenising.cost_us(given, 500, 64) > 0


def test_no_word_of_the_messages_is_unknown_to_the_tokenizer(tmp_path: Path) -> None:
    """Unknown words would make every text the same to the guard."""
    repository = guard.make(tmp_path)
    given = settings.load({"guards": {"repository": repository, "names": [guard.NAME]}})
    (loaded,) = wiring.load_guards(given.guards)
    ids = loaded.tokenizer.encode([message.text for message in messages.make(20)])
    assert 1 not in {number for row in ids for number in row}


def test_peers_emit_what_the_worker_emits() -> None:
    """Both records name the input's position as id and carry the message's id as key."""
    desk, schemas, (message,) = work.Desk(settings.load()), wiring.load_schemas(), messages.make(1)
    at = Position(topic="prompts", partition=3, offset=7)
    case = desk.admit(codec.encode_message(message, schemas), at)
    verdict, audit = desk.outcome(case, (JUDGEMENT,))
    assert codec.decode_verdict(verdict.value or b"", schemas).source == at
    assert codec.decode_audit(audit.value or b"", schemas).verdict.verdict_id == str(at)
    assert {verdict.key, audit.key} == {message.message_id.encode()}
    assert headers.first(audit.headers, headers.CE_ID) == str(at)
