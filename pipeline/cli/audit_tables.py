"""How proofs and chain heads are shown."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from pipeline.audit_proof import Break, ChainProof, Proof
from pipeline.chain import ChainHead, ChainState
from pipeline.chain_heads import Checkpoint
from pipeline.cli import console, tables


def show(proof: Proof) -> None:
    """Print the chains, what limits the proof, and its end."""
    if proof.chains:
        tables.show(_chains(proof))
    for remark in _remarks(proof):
        console.note(remark)
    if proof.breaks:
        console.out.print("[bold red]not proved[/]", end=" ")
        console.out.print(_named(proof.breaks[0]), markup=False)
        if len(proof.breaks) > 1:
            console.note(f"{len(proof.breaks) - 1:,} more chains are broken (--json lists them)")
    elif proof.events:
        console.out.print(
            f"[green]proved[/]: {proof.events:,} events in {len(proof.chains):,} chains"
        )
    else:
        console.note("there is no chained audit event in this range")


def document(proof: Proof) -> dict[str, Any]:
    """The proof as the JSON document that `--json` prints."""
    return {
        "proved": proof.proved,
        "events": proof.events,
        "chains": [_chain_document(chain) for chain in proof.chains],
        "breaks": [_break_document(found) for found in proof.breaks],
        "before_chaining": proof.before_chaining,
        "expired_heads": proof.expired,
    }


def heads(latest: list[Checkpoint]) -> Table:
    """A table of chain heads."""
    numbers = ("partition", "sequence", "offset")
    table = tables.table(("chain", *numbers, "state", "written", "signer"), right=numbers)
    for one in latest:
        head = one.head
        table.add_row(
            head.chain,
            str(head.partition),
            str(head.tip.sequence),
            str(head.offset),
            head.state.value,
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            one.signer or "",
        )
    return table


def head_document(one: Checkpoint) -> dict[str, Any]:
    """A head as the JSON document that `--json` prints."""
    return {
        **_head_document(one.head),
        "chain": one.head.chain,
        "partition": one.head.partition,
        "checkpointed_at": one.at.isoformat(),
        "signer": one.signer,
    }


def _chains(proof: Proof) -> Table:
    right = ("partition", "sequences", "events", "beyond head")
    table = tables.table(("chain", *right, "head"), right=right)
    for chain in proof.chains:
        style = "bold red" if chain.fault else None
        table.add_row(
            chain.chain,
            str(chain.partition),
            f"{chain.first}..{chain.last}",
            f"{chain.events:,}",
            f"{chain.beyond_head:,}",
            f"{chain.head.state.value} at {chain.head.tip.sequence}" if chain.head else "none",
            style=style,
        )
    return table


def _remarks(proof: Proof) -> list[str]:
    """What the proof does not say, with its size."""
    inside = sum(chain.begins_inside for chain in proof.chains)
    broken = sum(c.beyond_head for c in proof.chains if _is(c, ChainState.BROKEN))
    beyond = sum(chain.beyond_head for chain in proof.chains) - broken
    said = [
        (inside, "chains began before this range: their first event here is taken as it is"),
        (beyond, "events lie behind the last head: in order, but not proved to be the last"),
        (broken, "events lie behind the head of a broken chain: told again in another"),
        (proof.before_chaining, "events lie before chaining began and prove nothing"),
        (
            proof.expired,
            "heads belong to events before the log's start: deleted by retention, or by a person",
        ),
    ]
    return [f"{count:,} {text}" for count, text in said if count]


def _is(chain: ChainProof, state: ChainState) -> bool:
    return chain.head is not None and chain.head.state is state


def _named(found: Break) -> str:
    where = f"partition {found.partition} offset {found.offset}"
    chain = f", chain {found.chain} sequence {found.sequence}" if found.chain else ""
    return f"{found.fault.value} at {where}{chain}: {found.detail}"


def _chain_document(chain: ChainProof) -> dict[str, Any]:
    return {
        "chain": chain.chain,
        "writer": chain.writer,
        "partition": chain.partition,
        "first": chain.first,
        "last": chain.last,
        "events": chain.events,
        "beyond_head": chain.beyond_head,
        "begins_inside": chain.begins_inside,
        "head": _head_document(chain.head) if chain.head else None,
    }


def _head_document(head: ChainHead) -> dict[str, Any]:
    return {
        "sequence": head.tip.sequence,
        "offset": head.offset,
        "state": head.state.value,
        "hash": head.tip.hash.hex(),
    }


def _break_document(found: Break) -> dict[str, Any]:
    return {
        "fault": found.fault.value,
        "partition": found.partition,
        "offset": found.offset,
        "chain": found.chain,
        "sequence": found.sequence,
        "detail": found.detail,
    }
