"""`sluice classify`: how a verdict is shown, and what is refused."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline import one_off
from pipeline.cli.classify import bar, short
from pipeline.events import Action, Coverage, GuardRef, Judgement, Kind, Message, Received
from pipeline.moderation import Intake, Stamp, admit, conclude
from pipeline.one_off import Judged
from pipeline.policy import Policy
from tests.support.cli import Sluice

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCORES = {"unsafe": 0.97, "S2": 0.4, "S4": 0.01, "S10": 0.02, "injection": 0.1, "jailbreak": 0.0}


@pytest.fixture
def sluice(capfdbinary: pytest.CaptureFixture[bytes]) -> Sluice:
    """The command, in this process."""
    return Sluice(capfdbinary)


@pytest.fixture
def asked(shipped_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Scripted scores in the guard's place; gathers the messages judged."""
    messages: list[Message] = []

    async def judge(_settings: object, message: Message, **_: object) -> Judged:
        messages.append(message)
        received = Received(message=message, position=one_off.POSITION, received_at=NOW)
        limits = Intake(max_text_bytes=1000, max_future_s=1.0)
        case = admit(received, shipped_policy, limits)
        outcome = conclude(case, [_judgement()], Stamp(worker_id="w", now=NOW))
        return Judged(verdict=outcome.verdict, rules=case.rules, elapsed_s=0.0123)

    monkeypatch.setattr(one_off, "judge", judge)
    return messages


def _judgement() -> Judgement:
    return Judgement(
        guard=GuardRef(name="toy", version="1", digest="sha256:" + "ab" * 32),
        scores=SCORES,
        coverage=Coverage(scanned_tokens=5, total_tokens=5),
        template_digest="",
        windows=1,
        batch_rows=1,
        queued_s=0.0,
        inference_s=0.0,
    )


def test_the_action_stands_first_in_words(sluice: Sluice, asked: list[Message]) -> None:
    """Colour is never the only sign."""
    first, reason, *_ = sluice("classify", "hello").out.splitlines()
    assert " ".join(first.split()) == "BLOCK do not let it through"
    assert "unsafe Any hazard: 0.970 >= 0.95" in reason


def test_only_categories_that_matter_are_shown(sluice: Sluice, asked: list[Message]) -> None:
    """Those with a threshold or a notable score; --all shows the rest."""
    shown = sluice("classify", "hello").out
    assert "Non-Violent Crimes" in shown
    assert "Child Sexual Exploitation" in shown
    assert "Hate" not in shown
    assert "Hate" in sluice("classify", "hello", "--all").out


def test_provenance_is_shown(sluice: Sluice, asked: list[Message]) -> None:
    """Guard, policy, coverage and time."""
    shown = sluice("classify", "hello").out
    for part in ("toy version 1 sha256:abababababab", "5 of 5 tokens", "12.3 ms", "default"):
        assert part in shown


def test_json_is_the_verdict_document(sluice: Sluice, asked: list[Message]) -> None:
    """The same document as a verdict from Kafka; its position says that it is not."""
    document = sluice("classify", "hello", "--json").json
    assert document["action"] == "block"
    assert document["verdict_id"] == "classify:0:0"


def test_options_reach_the_message(sluice: Sluice, asked: list[Message]) -> None:
    """Kind, context, tenant and route are judged as given."""
    options = ("--kind", "completion", "--prompt", "why", "--tenant", "acme", "--route", "chat")
    assert sluice("classify", "hello", *options).code == 0
    message = asked[0]
    assert (message.kind, message.prompt) == (Kind.COMPLETION, "why")
    assert (message.tenant, message.route) == ("acme", "chat")


def test_a_dash_reads_stdin(
    sluice: Sluice, asked: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newline that ends the input is not part of the text."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("zwölf\nzeilen\n".encode())))
    assert sluice("classify", "-").code == 0
    assert asked[0].text == "zwölf\nzeilen"


def test_stdin_that_is_not_utf8_is_refused(
    sluice: Sluice, asked: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2 before anything is asked."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert sluice("classify", "-").code == 2
    assert not asked


def test_a_prompt_has_no_prompt(sluice: Sluice, asked: list[Message]) -> None:
    """Context is for completions only."""
    done = sluice("classify", "hello", "--prompt", "x")
    assert done.code == 2
    assert "--kind completion" in done.err


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text_is_refused(
    sluice: Sluice, text: str, tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, before a Triton is asked or started."""
    monkeypatch.setenv("SLUICE_GUARDS__REPOSITORY", str(tiny_repository))
    monkeypatch.setenv("SLUICE_GUARDS__NAMES", '["tiny"]')
    done = sluice("classify", text)
    assert done.code == 2
    assert "empty" in done.err


def test_no_triton_exits_3_when_none_may_be_started(
    sluice: Sluice, tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the address."""
    monkeypatch.setenv("SLUICE_GUARDS__REPOSITORY", str(tiny_repository))
    monkeypatch.setenv("SLUICE_GUARDS__NAMES", '["tiny"]')
    monkeypatch.setenv("SLUICE_TRITON__URL", "127.0.0.1:9")
    done = sluice("classify", "hello", "--no-embedded")
    assert done.code == 3
    assert "127.0.0.1:9" in done.err


def test_a_bar_fills_with_the_score_and_marks_thresholds() -> None:
    """Twenty cells; a threshold's cell differs whether filled or not."""
    assert bar(0.0, []).plain == "·" * 20
    assert bar(1.0, []).plain == "█" * 20
    assert bar(0.5, [0.25, 0.75]).plain == "█████┃████·····│····"


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_a_threshold_at_either_end_is_marked(at: float) -> None:
    """0 and 1 are thresholds too."""
    assert "│" in bar(0.0, [at]).plain


def test_a_short_digest_names_its_algorithm() -> None:
    """Twelve digits tell digests apart."""
    assert short("sha256:" + "0123456789abcdef") == "sha256:0123456789ab"


def test_every_action_has_words() -> None:
    """An action that a newer release adds cannot be shown as nothing."""
    from pipeline.cli.classify import _IN_WORDS

    assert set(_IN_WORDS) == set(Action)
