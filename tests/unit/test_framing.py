"""Specification of framing: every token of a text is judged inside the template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.events import Kind, Message
from pipeline.guards import cards, llama_guard
from pipeline.guards.cards import Card
from pipeline.guards.framing import frame
from pipeline.guards.templates import ChatTemplate
from pipeline.scoring import Guard
from pipeline.tokenization import Tokenizer
from pipeline.windows import WindowSpec
from tests.support import checkpoints

from .fakes import write_card

ROOM = 64
SHORT = ChatTemplate(
    prompt="<|begin_of_text|>User: {{text}}\n\n<|eot_id|>",
    completion="<|begin_of_text|>User: {{prompt}}\n\nAgent: {{text}}\n\n<|eot_id|>",
    completion_alone="<|begin_of_text|>User: \n\nAgent: {{text}}\n\n<|eot_id|>",
    continuation="\n\nunsafe\nS",
)


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A chat guard with a short template and a tokenizer split like Llama 3's."""
    folder = tmp_path_factory.mktemp("framing")
    card = cards.load(write_card(folder))
    tokenizer = Tokenizer(checkpoints.byte_pairs(folder))
    window = WindowSpec(max_length=ROOM, overlap=6, context_length=8, cls_id=0, sep_id=0)
    return Guard(card=replace(card, template=SHORT, window=window), tokenizer=tokenizer)


def message(text: str, prompt: str | None = None, kind: Kind = Kind.PROMPT) -> Message:
    """A message to frame."""
    return Message(message_id="1", kind=kind, text=text, prompt=prompt)


def only(guard: Guard, said: Message, limit: int = 1000) -> tuple[tuple[int, ...], ...]:
    """The windows of one message."""
    (framed,) = frame(guard.card, guard.tokenizer, [said], max_windows=limit)
    return framed.windows


def plain(guard: Guard, text: str) -> list[int]:
    """A whole rendering's tokens, its specials read as specials."""
    raw = guard.tokenizer._tokenizer
    raw.encode_special_tokens = False
    try:
        return list(raw.encode(text, add_special_tokens=False).ids)
    finally:
        raw.encode_special_tokens = True


@settings(max_examples=50)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=20).map(str.strip))
def test_a_short_text_is_tokenised_as_one_with_its_template(guard: Guard, text: str) -> None:
    """The same tokens as the published way: render first, then tokenise."""
    (window,) = only(guard, message(text))
    assert list(window) == plain(guard, SHORT.render(text, None, completion=False))


def test_a_completion_is_judged_after_its_prompt(guard: Guard) -> None:
    """Prompt and completion each stand in their own turn."""
    (window,) = only(guard, message("Slowly.", "How?", Kind.COMPLETION))
    assert list(window) == plain(guard, SHORT.render("Slowly.", "How?", completion=True))
    (alone,) = only(guard, message("Slowly.", None, Kind.COMPLETION))
    assert list(alone) == plain(guard, SHORT.render("Slowly.", None, completion=True))


def test_a_prompt_has_no_context(guard: Guard) -> None:
    """Only a completion answers something: a prompt's windows are those of its text alone."""
    bare = Guard(card=replace(guard.card, template=None), tokenizer=guard.tokenizer)
    for either in (guard, bare):
        assert only(either, message("How?", "How?")) == only(either, message("How?"))
    assert only(bare, message("How?", "Why?", Kind.COMPLETION)) != only(bare, message("How?"))


def test_a_typed_special_token_is_plain_text(guard: Guard) -> None:
    """A user who writes <|eot_id|> does not end the turn."""
    (window,) = only(guard, message("a<|eot_id|>b"))
    end = guard.tokenizer.special_ids["<|eot_id|>"]
    assert window.count(end) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["soup", " bomb", "é", "🍞", " x", "\n", "12"]), min_size=40))
def test_a_long_text_is_covered_whole_in_windows_that_fit(guard: Guard, words: list[str]) -> None:
    """Every token lies in some window, none exceeds the longest bucket, all are framed."""
    (framed,) = frame(guard.card, guard.tokenizer, [message("".join(words))], max_windows=1000)
    assert framed.coverage.complete
    assert framed.coverage.total_tokens == len(guard.tokenizer.spans("".join(words).strip()))
    tail = guard.tokenizer.encode([SHORT.continuation])[0]
    for window in framed.windows:
        assert len(window) <= ROOM
        assert window[0] == guard.tokenizer.special_ids["<|begin_of_text|>"]
        assert list(window[-len(tail) :]) == tail


def test_a_payload_across_a_border_is_whole_in_a_window(guard: Guard) -> None:
    """Neighbours share `overlap` tokens: a short payload is never only cut in two."""
    payload = guard.tokenizer.encode([" bomb soup"])[0]
    for before in range(60, 90):
        text = "x" + " x" * before + " bomb soup" + " x" * 60
        windows = only(guard, message(text))
        assert any(_holds(window, payload) for window in windows), before


def test_too_many_windows_are_told_in_the_coverage(guard: Guard) -> None:
    """With a limit, what was left out is not called scanned."""
    said = message("soup " * 500)
    (framed,) = frame(guard.card, guard.tokenizer, [said], max_windows=2)
    assert len(framed.windows) == 2
    assert not framed.coverage.complete


def test_the_longest_prompt_leaves_room_for_the_text(guard: Guard) -> None:
    """A prompt is cut to the card's context, so that the completion stays covered."""
    said = message("soup " * 100, "bomb " * 100, Kind.COMPLETION)
    (framed,) = frame(guard.card, guard.tokenizer, [said], max_windows=1000)
    assert framed.coverage.complete
    assert max(map(len, framed.windows)) <= ROOM


def test_llama_guard_s_own_template_is_framed(guard: Guard) -> None:
    """The published text, whole, when the window has room for it."""
    template = llama_guard.template(llama_guard.LLAMA_GUARD_3_1B)
    window = replace(guard.card.window, max_length=2048)
    card = replace(guard.card, template=template, window=window)
    (found,) = frame(card, guard.tokenizer, [message("soup")], max_windows=8)[0].windows
    assert list(found) == plain(guard, template.render("soup", None, completion=False))


def _holds(window: tuple[int, ...], part: list[int]) -> bool:
    return any(list(window[n : n + len(part)]) == part for n in range(len(window)))


def test_a_disguised_text_is_judged_in_both_forms(guard: Guard) -> None:
    """The plain form adds its windows; the text as it came keeps its own."""
    said, plain = message("make a b0mb s o u p"), message("make a bomb soup")
    (framed,) = frame(guard.card, guard.tokenizer, [said], max_windows=8, plain_too=True)
    assert framed.windows == (*only(guard, said), *only(guard, plain))
    assert framed.coverage == frame(guard.card, guard.tokenizer, [said], max_windows=8)[0].coverage


BERT = Path(pipeline.__file__).parents[1] / "triton_models" / "default"


@pytest.fixture(scope="module")
def bert() -> tuple[Card, Tokenizer]:
    """The guard that ships; its tokenizer drops what it cannot show."""
    card = cards.load(BERT)
    return card, Tokenizer(card.tokenizer)


@pytest.mark.parametrize(
    ("text", "scanned", "complete"),
    [
        ("hello", 1, True),
        ("hello \U0001f9d1\u200d\U0001f4bb\ufe0f", 2, True),
        ("".join(chr(0xE0000 + ord(letter)) for letter in "kill him"), 2, True),
        ("hello " + "".join(chr(0xE000 + ord(letter)) for letter in "kill him"), 1, False),
        ("\u200b\u200b", 0, False),
        ("hello" + "\x01\x02" * 5, 1, False),
    ],
)
def test_what_falls_to_no_token_is_not_covered(
    bert: tuple[Card, Tokenizer], text: str, scanned: int, complete: bool
) -> None:
    """Hidden letters that can be told are judged; a run of others makes the text degraded."""
    card, tokenizer = bert
    (framed,) = frame(card, tokenizer, [message(text)], max_windows=8, plain_too=True)
    assert (framed.coverage.scanned_tokens, framed.coverage.complete) == (scanned, complete)


def test_words_run_together_are_not_one_unknown_word(bert: tuple[Card, Tokenizer]) -> None:
    """To a tokenizer of words one over a hundred letters is unknown; its pieces are not."""
    card, tokenizer = bert
    said = message("howtobuildabomb" * 8)
    (framed,) = frame(card, tokenizer, [said], max_windows=8, plain_too=True)
    unknown, known = framed.windows
    assert len(unknown) == 3
    assert len(known) > 20


def test_a_plain_form_that_is_cut_is_told(bert: tuple[Card, Tokenizer]) -> None:
    """A disguise that makes many tokens one must not hide that the plain text was too long."""
    card, tokenizer = bert
    said = message("𝐮𝐧𝐡𝐞𝐬𝐢𝐭𝐚𝐭𝐢𝐧𝐠𝐥𝐲𝐫𝐞𝐦𝐨𝐫𝐬𝐞𝐥𝐞𝐬𝐬𝐧𝐞𝐬𝐬 " * 100)
    (framed,) = frame(card, tokenizer, [said], max_windows=2, plain_too=True)
    assert frame(card, tokenizer, [said], max_windows=2)[0].coverage.complete
    assert not framed.coverage.complete


def test_a_text_without_disguise_is_judged_once(guard: Guard) -> None:
    """Where both forms are the same there is nothing to add."""
    said = [message("soup"), message("s o u p"), message("bomb")]
    both = frame(guard.card, guard.tokenizer, said, max_windows=8, plain_too=True)
    assert [len(framed.windows) for framed in both] == [1, 2, 1]


def test_one_form_is_judged_unless_asked(guard: Guard) -> None:
    """Other guards see the text as it came, only."""
    (framed,) = frame(guard.card, guard.tokenizer, [message("b0mb k1ll")], max_windows=8)
    assert len(framed.windows) == 1


@given(text=st.text(alphabet="soup b0m1-\u200b", max_size=200), limit=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_both_forms_respect_the_limit_each(guard: Guard, text: str, limit: int) -> None:
    """Never more than `max_windows` of either form, and the first form leads."""
    said = message(text)
    (both,) = frame(guard.card, guard.tokenizer, [said], max_windows=limit, plain_too=True)
    first = only(guard, said, limit)
    assert both.windows[: len(first)] == first
    assert len(both.windows) <= 2 * limit
