"""The fixed records that the committed golden frames hold.

`python -m tests.unit.golden_records` writes a frame that is missing. It never
replaces one: a frame, once committed, must decode for ever.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import structs

from pipeline import chain_heads, codec
from pipeline.chain import ChainHead, ChainState, Tip
from pipeline.events import (
    Action,
    AuditEvent,
    ChainLink,
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
from pipeline.resources import shipped

FOLDER: Final = Path(__file__).resolve().parent.parent / "golden"
_AT: Final = datetime(2025, 3, 4, 5, 6, 7, 891_011, tzinfo=UTC)

PROMPT: Final = Message(
    message_id="m-1",
    kind=Kind.PROMPT,
    text="Grüße, 世界 👋",
    conversation_id="c-1",
    tenant="acme",
    route="chat",
    language="de",
    sent_at=_AT,
)
COMPLETION: Final = Message(
    message_id="m-2",
    kind=Kind.COMPLETION,
    text="A sample answer.",
    tenant="acme",
    prompt="A sample question?",
    prompt_id="m-1",
)
VERDICT: Final = Verdict(
    verdict_id="moderation.prompts.v1:3:4294967296",
    message_id="m-1",
    conversation_id="c-1",
    tenant="acme",
    kind=Kind.PROMPT,
    action=Action.REVIEW,
    status=Status.DEGRADED,
    reason="S12 Sexual Content: 0.750 >= 0.5 asks for review (tenant acme)",
    taxonomy="sluice-1",
    scores={"S12": 0.75, "unsafe": 0.8125},
    flagged=(
        Flagged(
            category="S12", score=0.75, threshold=0.5, action=Action.REVIEW, origin="tenant acme"
        ),
    ),
    coverage=Coverage(scanned_tokens=1016, total_tokens=4096),
    guards=(GuardRef(name="default", version="1", digest="sha256:" + "0" * 64),),
    policy=PolicyRef(id="default", version="1", digest="sha256:" + "1" * 64),
    received_at=_AT,
    scored_at=_AT,
    emitted_at=_AT,
    source=Position(topic="moderation.prompts.v1", partition=3, offset=4294967296),
)
AUDIT: Final = AuditEvent(
    verdict=VERDICT,
    content_hash="sha256:" + "2" * 64,
    retention=Retention.PLAIN,
    content="Grüße, 世界 👋".encode(),
    context=None,
    route="chat",
    language="de",
    prompt_id=None,
    sent_at=_AT,
    template_digest="sha256:" + "3" * 64,
    windows=8,
    batch_rows=32,
    queued_s=0.0625,
    inference_s=0.125,
    worker_id="worker-1",
    attempt=2,
)
LINKED: Final = structs.replace(
    AUDIT,
    key_id="acme/1",
    chain=ChainLink(chain="worker-1/0123456789ab/3/0", sequence=300, previous=bytes(range(32))),
)
HEAD: Final = ChainHead(
    chain="worker-1/0123456789ab/3/0",
    worker_id="worker-1",
    topic="moderation.audit.v1",
    partition=3,
    tip=Tip(sequence=300, hash=bytes(range(32))),
    offset=4294967296,
    state=ChainState.CLOSED,
)

BEGUN: Final = replace(HEAD, first_offset=4294966996)


def frames() -> dict[str, bytes]:
    """Each golden file's name and the frame this release would write."""
    schemas = codec.load_schemas(shipped("schemas"))
    return {
        "prompt.v1.bin": codec.encode_message(PROMPT, schemas),
        "completion.v1.bin": codec.encode_message(COMPLETION, schemas),
        "verdict.v1.bin": codec.encode_verdict(VERDICT, schemas),
        "audit.v1.bin": codec.encode_audit(AUDIT, schemas),
        "audit-linked.v1.bin": codec.encode_audit(LINKED, schemas),
        "chain-head.v1.bin": chain_heads.encode(HEAD, _AT, None, schemas),
        "chain-head-begun.v1.bin": chain_heads.encode(BEGUN, _AT, None, schemas),
    }


if __name__ == "__main__":
    for name, frame in frames().items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(frame)
