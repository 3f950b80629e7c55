"""Specification of sealing: only the right key, for the right event, opens the right bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline import codec, sealing
from pipeline.errors import Misconfigured, Rejected, SealBroken
from pipeline.events import AuditEvent, Ciphertext, Retention
from pipeline.sealing import NoKeys, Opened
from tests.support.golden_records import AUDIT

keys = st.binary(min_size=32, max_size=32)
KEY = bytes(range(32))


@given(keys, st.binary(max_size=300), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_was_sealed_opens_again(key: bytes, content: bytes, bound_to: str) -> None:
    """The same key and binding give the content back, whatever it is."""
    sealed = sealing.seal(key, content, bound_to=bound_to)
    assert sealing.unseal(key, sealed, bound_to=bound_to) == content


@given(st.binary(min_size=1, max_size=60), st.data())
def test_one_flipped_bit_anywhere_is_refused(content: bytes, data: st.DataObject) -> None:
    """Version, nonce, body or tag: nothing can be changed unseen."""
    sealed = bytearray(sealing.seal(KEY, content, bound_to="a:0:1/content"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken) as caught:
        sealing.unseal(KEY, bytes(sealed), bound_to="a:0:1/content")
    assert caught.value.remedy


@given(st.binary(max_size=60), st.text("a:01/", min_size=1), st.text("a:01/", min_size=1))
def test_a_ciphertext_cannot_be_moved(content: bytes, here: str, there: str) -> None:
    """Bound to another event or field it does not open."""
    sealed = sealing.seal(KEY, content, bound_to=here)
    if here != there:
        with pytest.raises(SealBroken):
            sealing.unseal(KEY, sealed, bound_to=there)


@given(keys, keys)
def test_another_key_does_not_open_it(one: bytes, other: bytes) -> None:
    """A tenant's key says nothing about another tenant's texts."""
    sealed = sealing.seal(one, b"text", bound_to="x")
    if one != other:
        with pytest.raises(SealBroken):
            sealing.unseal(other, sealed, bound_to="x")


@pytest.mark.parametrize("junk", [b"", b"\x01", b"\x01" * 28, b"\x02" + bytes(40), b"plain text"])
def test_bytes_that_are_no_seal_are_refused(junk: bytes) -> None:
    """Too short, or of a format that this release does not know."""
    with pytest.raises(SealBroken):
        sealing.unseal(KEY, junk, bound_to="x")


def test_a_nonce_serves_once() -> None:
    """The same text sealed twice shares no nonce and no body; the version byte comes first."""
    sealed = [sealing.seal(KEY, b"text", bound_to="x") for _ in range(500)]
    assert len({each[1:13] for each in sealed}) == 500
    assert {each[0] for each in sealed} == {1}
    assert {len(each) for each in sealed} == {1 + 12 + 4 + 16}


def test_without_keys_nothing_is_sealed() -> None:
    """The error names the tenant and what to do."""
    with pytest.raises(Misconfigured, match=r"'acme'.*audit\.keys_folder"):
        NoKeys().seal("acme", b"text", bound_to="x")


ENCRYPTED = replace(
    AUDIT,
    retention=Retention.ENCRYPTED,
    key_id="k1",
    content=sealing.seal(
        KEY, AUDIT.content or b"", bound_to=sealing.content_of(AUDIT.verdict.verdict_id)
    ),
    context=sealing.seal(KEY, b"a question", bound_to=sealing.context_of(AUDIT.verdict.verdict_id)),
)
SEALED = ENCRYPTED.content


@pytest.mark.parametrize(
    "wrong",
    [
        {"content": b"plain text"},
        {"content": b"plain text", "context": None},
        {"context": b"a plain question"},
        {"content": bytes(SEALED or b"")},
        {"content": None},
        {"key_id": None},
        {"key_id": ""},
    ],
)
def test_plain_text_cannot_claim_to_be_encrypted(wrong: dict[str, bytes | None]) -> None:
    """There is no such event: not even bytes that look like a seal pass as one."""
    with pytest.raises(ValueError, match="sealed content only"):
        replace(ENCRYPTED, **wrong)
    with pytest.raises(ValueError, match="sealed content only"):
        replace(AUDIT, retention=Retention.ENCRYPTED)


def test_an_encrypted_event_crosses_the_wire(schemas: codec.Schemas) -> None:
    """It decodes as it was, its content still of the sealed type; the text is not in it."""
    frame = codec.encode_audit(ENCRYPTED, schemas)
    found = codec.decode_audit(frame, schemas)
    assert found == ENCRYPTED
    assert isinstance(found.content, Ciphertext)
    assert isinstance(found.context, Ciphertext)
    assert (AUDIT.content or b"-") not in frame
    assert b"a question" not in frame


def test_a_frame_with_plain_text_under_encrypted_is_refused(schemas: codec.Schemas) -> None:
    """Whoever wrote it, a reader does not take it for sealed."""
    whole = codec.read(codec.encode_audit(ENCRYPTED, schemas), codec.AUDIT, schemas)
    forged = codec.write({**whole, "content": b"plain"}, codec.AUDIT, schemas)
    with pytest.raises(Rejected, match="sealed"):
        codec.decode_audit(forged, schemas)


class OneKey:
    """An opener with one key, `k1`."""

    def open(self, key_id: str, ciphertext: bytes, *, bound_to: str) -> bytes:
        """As a key folder."""
        assert key_id == "k1"
        return sealing.unseal(KEY, ciphertext, bound_to=bound_to)


def test_an_event_opens_with_content_and_context() -> None:
    """Each is bound to its own field of its own event."""
    found = sealing.opened(ENCRYPTED, OneKey())
    assert found == Opened(content=AUDIT.content, context=b"a question")
    swapped = replace(ENCRYPTED, content=ENCRYPTED.context, context=ENCRYPTED.content)
    with pytest.raises(SealBroken):
        sealing.opened(swapped, OneKey())
    other = replace(ENCRYPTED, verdict=replace(AUDIT.verdict, verdict_id="a:0:9"))
    with pytest.raises(SealBroken):
        sealing.opened(other, OneKey())


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (AUDIT, AUDIT.content),
        (replace(AUDIT, retention=Retention.HASH, content=None), None),
        (replace(AUDIT, retention=Retention.UNKNOWN, content=b"?"), None),
    ],
)
def test_what_was_not_sealed_needs_no_key(event: AuditEvent, text: bytes | None) -> None:
    """Plain is plain; a later release's word gives nothing away."""
    assert sealing.opened(event, None).content == text


def test_sealed_content_without_an_opener_names_the_setting() -> None:
    """A person is told what to set."""
    with pytest.raises(Misconfigured, match="keys_folder"):
        sealing.opened(ENCRYPTED, None)
