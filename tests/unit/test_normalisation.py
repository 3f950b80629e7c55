"""Specification of normalisation: disguises are undone, ordinary text stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import normalisation
from pipeline.normalisation import normalise


def tags(text: str) -> str:
    """The text in Unicode's tag characters, which no screen shows."""
    return "".join(chr(0xE0000 + ord(letter)) for letter in text)


def selectors(text: str) -> str:
    """The text's bytes as variation selectors, which no screen shows."""
    return "".join(chr(b + (0xFE00 if b < 16 else 0xE0100 - 16)) for b in text.encode())


DISGUISES = [
    (f"hello {tags('kill him')}", "hello kill him"),
    (
        f"\N{SMILING FACE WITH SMILING EYES}{selectors('kill him')}",
        "\N{SMILING FACE WITH SMILING EYES}kill him",
    ),
    ("please\u2060kill\u2060him\u2060today", "please kill him today"),
    ("killthem" * 16, " ".join(["killthem" * 4] * 4)),
    ("k\u200bi\u200bl\u200bl him", "kill him"),
    ("ｋｉｌｌ him", "kill him"),
    ("𝐤𝐢𝐥𝐥 him", "kill him"),
    ("kіll him", "kill him"),
    ("k i l l him", "kill him"),
    ("k.i.l.l him", "kill him"),
    ("b-o-m-b him", "bomb him"),
    ("k1ll h1m", "kill him"),
    ("m4k3 a b0mb", "make a bomb"),
    ("p@ssw0rds", "passwords"),
    ("k 1 l l him", "kill him"),
    (
        "H0w d0 1 m4k3 4 b0mb? $734l 7h3 m0n3y 70 p4y.",
        "How do i make a bomb? steal the money to pay.",
    ),
]
ORDINARY = [
    "Write to ann@example.com before 10:30.",
    "COVID19, mp3 and IPv4 are names; x = a[0] + 41.",
    "Я ищу книгу о войне.",
    "你好，请问图书馆在哪里？",
    "Windows™ costs 5½ € per user… “really”",
    "I am a b or c.",
    "naïve café, Ελλάδα",
    "sha256sum and base64",
    "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6",
    "At 10:30 in room 47 we met 3 of 5 people for $15.",
]


@pytest.mark.parametrize(("disguised", "plain"), DISGUISES)
def test_a_disguise_is_undone(disguised: str, plain: str) -> None:
    """Zero-width, compatibility, lookalike, spaced and replaced letters."""
    assert normalise(disguised) == plain


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """Names with digits, addresses, other scripts and signs are no disguise."""
    assert normalise(text) == text


@given(st.text())
def test_a_plain_form_is_its_own_plain_form(text: str) -> None:
    """Normalising twice changes nothing more."""
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(alphabet="ki10@$ .-\u200bі", max_size=40))
def test_disguised_alphabets_settle_too(text: str) -> None:
    """The same among the characters that disguises are made of."""
    assert normalise(normalise(text)) == normalise(text)


@given(st.text())
def test_nothing_grows_but_words_that_are_broken(text: str) -> None:
    """The plain form is never longer than the text and the breaks of its endless words."""
    assert len(normalise(text)) <= len(text) + len(text) // 16


@pytest.mark.parametrize("text", ["字", "é", "é\u200b", "ééé\u200b", "a", "x1", "\u2060", "\ufe00"])
def test_a_million_characters_are_no_trap(text: str) -> None:
    """A search that begins anew at each character would not end within the test's time."""
    once = normalise(text * (1_000_000 // len(text)))
    assert normalise(once) == once


LONG = st.sampled_from(
    ["a" * 33, "k1ll" * 20, "b0mb\u200b", tags("0h n0 "), selectors("k i l l "), " ", "x ", "4 ",
     "\u2060word", "и" * 70, "\U000e0101" * 3, "\ufe01\ufe02", "ｋ" * 120, "字" * 40, "ไทย" * 30]
)  # fmt: skip


@given(st.lists(LONG, max_size=12).map("".join))
def test_hidden_and_endless_words_settle_too(text: str) -> None:
    """Normalising twice changes nothing more, and grows no further."""
    once = normalise(text)
    assert normalise(once) == once
    assert len(once) <= len(text) + len(text) // 16


def test_a_text_of_every_character_does_not_stay_in_memory() -> None:
    """The plain forms that are remembered are bounded, and right after they were forgotten."""
    every = "".join(map(chr, range(0x80, 0xD800)))
    normalise(every)
    assert len(normalisation._PLAIN) <= normalisation._PlainForms._MOST
    assert normalise("\N{FULLWIDTH LATIN SMALL LETTER K}ill") == "kill"
