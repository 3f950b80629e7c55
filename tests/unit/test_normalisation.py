"""Specification of normalisation: disguises are undone, ordinary text stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.normalisation import normalise

DISGUISES = [
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
def test_nothing_grows(text: str) -> None:
    """The plain form is never longer than the text."""
    assert len(normalise(text)) <= len(text)
