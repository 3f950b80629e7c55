"""Hypothesis strategies for records as they may cross the wire."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from pipeline.events import (
    Action,
    AuditEvent,
    ChainLink,
    Ciphertext,
    Coverage,
    Flagged,
    GuardRef,
    Kind,
    Message,
    PolicyRef,
    Position,
    Retention,
    Status,
    Verdict,
)
from pipeline.taxonomy import CATEGORIES

# Kafka, Avro and JSON carry no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = texts.filter(bool)
maybe_text = st.none() | texts
# Hypothesis takes bounds without a zone and adds the zone itself.
moments = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001
    max_value=datetime(9999, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
counts = st.integers(0, 2**31 - 1)
longs = st.integers(-1, 2**63 - 1)
# The wire carries scores as 32-bit floats.
scores = st.floats(0, 1, width=32)
seconds = st.floats(0, 1e6)
categories = st.sampled_from(sorted(CATEGORIES))


def messages(kind: Kind) -> st.SearchStrategy[Message]:
    """Any message of a kind; a prompt answers nothing."""
    answers = maybe_text if kind is Kind.COMPLETION else st.none()
    return st.builds(
        Message,
        message_id=names,
        kind=st.just(kind),
        text=texts,
        conversation_id=maybe_text,
        tenant=texts,
        route=maybe_text,
        language=maybe_text,
        prompt=answers,
        prompt_id=answers,
        sent_at=st.none() | moments,
    )


flagged = st.builds(
    Flagged, category=categories, score=scores, threshold=scores,
    action=st.sampled_from(Action), origin=texts,
)  # fmt: skip
verdicts = st.builds(
    Verdict,
    verdict_id=texts,
    message_id=names,
    conversation_id=maybe_text,
    tenant=texts,
    kind=st.sampled_from(Kind),
    action=st.sampled_from(Action),
    status=st.sampled_from(Status),
    reason=texts,
    taxonomy=texts,
    scores=st.dictionaries(categories, scores, max_size=4),
    flagged=st.lists(flagged, max_size=3).map(tuple),
    coverage=st.builds(Coverage, scanned_tokens=longs, total_tokens=longs),
    guards=st.lists(st.builds(GuardRef, name=texts, version=texts, digest=texts), max_size=2).map(
        tuple
    ),
    policy=st.builds(PolicyRef, id=texts, version=texts, digest=texts),
    received_at=moments,
    scored_at=st.none() | moments,
    emitted_at=moments,
    source=st.builds(Position, topic=texts, partition=counts, offset=longs),
)
ciphertexts = st.binary(min_size=28, max_size=48).map(lambda body: Ciphertext(b"\x01" + body))


def _audits(retention: Retention) -> st.SearchStrategy[AuditEvent]:
    """Events of one retention; an encrypted one holds sealed content and names its key."""
    sealed = retention is Retention.ENCRYPTED
    contents = ciphertexts if sealed else st.none() | st.binary(max_size=20)
    return st.builds(
        AuditEvent,
        verdict=verdicts,
        content_hash=texts,
        retention=st.just(retention),
        content=contents,
        context=st.none() | contents,
        route=maybe_text,
        language=maybe_text,
        prompt_id=maybe_text,
        sent_at=st.none() | moments,
        template_digest=texts,
        windows=counts,
        batch_rows=counts,
        queued_s=seconds,
        inference_s=seconds,
        worker_id=texts,
        attempt=counts,
        key_id=names if sealed else maybe_text,
        chain=st.none()
        | st.builds(ChainLink, chain=texts, sequence=longs, previous=st.binary(max_size=32)),
    )


audits = st.sampled_from(Retention).flatmap(_audits)
