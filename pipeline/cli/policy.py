"""`sluice policy`: check a policy file, or show what it asks for whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline import key_watch, wiring
from pipeline.adapters.key_admin import whose
from pipeline.adapters.keys import create_command
from pipeline.cli import console, session, tables
from pipeline.errors import Misconfigured, Rejected
from pipeline.events import Action, Kind
from pipeline.policy import OnUnavailable, Policy, Rules, Threshold
from pipeline.settings import Settings
from pipeline.taxonomy import name_of

app = typer.Typer(help="Policies: check a file, or show what it asks for whom.")

File = Annotated[
    Path | None, typer.Argument(help="The policy file; none: that of policy.file.", metavar="FILE")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def check(file: File = None, as_json: Json = False) -> None:
    """Validate a policy and that the guards score what it names; exit 2 if not.

    Example: sluice policy check policies/strict.toml
    """
    settings = session.begin(session.with_policy(file))
    policy = _checked(settings)
    without = _without_key(settings, policy)
    ref = policy.ref
    if as_json:
        tenants = sorted(policy.tenants)
        document = {"ok": True, "id": ref.id, "version": ref.version, "digest": ref.digest}
        console.print_json({**document, "tenants": tenants, "tenants_without_key": without})
        return
    console.out.print(Text(f"ok  {ref.id} version {ref.version} {ref.digest}"))


@app.command()
def show(
    file: File = None,
    *,
    tenant: Annotated[str, typer.Option(help="A tenant; none: the default.")] = "",
    route: Annotated[str | None, typer.Option(help="A route of that tenant.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="One kind of message; none: both.")] = None,
    as_json: Json = False,
) -> None:
    """Show the rules of a policy file and which layer each threshold comes from.

    With policy.follow a worker serves an activated policy instead of policy.file:
    `sluice policy history` tells which, and since when.
    """
    settings = session.begin(session.with_policy(file))
    policy = wiring.load_policy(settings)
    if file is None and settings.policy.follow:
        console.note(
            "this is policy.file; workers serve what was activated, if anything was:"
            " `sluice policy history` tells"
        )
    kinds = [kind] if kind else list(Kind)
    found = {each: _rules(policy, each, tenant, route) for each in kinds}
    if as_json:
        console.print_json(_document(policy, found, tenant, route))
        return
    ref = policy.ref
    console.out.print(Text(f"policy {ref.id} version {ref.version}, taxonomy {policy.taxonomy}"))
    console.out.print(Text(ref.digest))
    for each, rules in found.items():
        console.out.print(Text(f"\n{_whom(tenant, route)}: {each.value}s", style="bold"))
        tables.show(_table(rules))
        tables.show(_rest(rules))
    others = sorted(set(policy.tenants) - {tenant})
    if others:
        console.note(f"rules of their own, with --tenant: {', '.join(others)}")


def _checked(settings: Settings) -> Policy:
    """The policy; where a card cannot be read, checked without the guards."""
    policy = wiring.load_policy(settings)
    try:
        guards = wiring.load_guards(settings.guards)
    except Misconfigured as error:
        console.note(f"not compared with the guards: {error}")
    else:
        wiring.check_policy(policy, guards)
    return policy


def _without_key(settings: Settings, policy: Policy) -> list[str] | None:
    """Tenants that want encryption and have no key, told; None where no folder says."""
    wanted = policy.sealing_tenants()
    if not wanted:
        return []
    keys = wiring.open_keys(settings)
    if keys is None:
        console.note(
            "not compared with the keys: it keeps content encrypted, for which a worker"
            " needs audit.keys_folder"
        )
        return None
    without = key_watch.without_key(keys, wanted)
    for tenant in without:
        console.note(
            f"{whose(tenant)} has no usable key: the audit log will keep hashes only"
            f" until {create_command(tenant)}"
        )
    return without


def _rules(policy: Policy, kind: Kind, tenant: str, route: str | None) -> Rules:
    if route is not None and (tenant, route) not in policy.routes:
        raise Misconfigured(
            f"the policy has no route {route!r} of tenant {tenant!r}",
            remedy="Correct --tenant and --route; without --route the tenant's rules are shown",
        )
    try:
        rules = policy.rules(kind, tenant, route)
    except Rejected as error:
        raise Misconfigured(error.message, remedy=error.remedy) from error
    if not policy.knows(tenant):
        console.note(f"the policy does not know tenant {tenant!r}: these are the default's rules")
    return rules


def _whom(tenant: str, route: str | None) -> str:
    who = f"tenant {tenant}" if tenant else "default"
    return f"{who}, route {route}" if route else who


def _table(rules: Rules) -> Table:
    """One row a category and layer."""
    actions = (Action.FLAG, Action.REVIEW, Action.BLOCK)
    table = tables.table(
        ["category", "", *(action.value for action in actions), "set by"],
        right=[action.value for action in actions],
    )
    for (category, origin), steps in _grouped(rules).items():
        at = {step.action: f"{step.at:g}" for step in steps}
        cells = [Text(at.get(action, "-"), style=console.STYLE[action]) for action in actions]
        table.add_row(Text(category), Text(name_of(category)), *cells, Text(origin))
    return table


def _grouped(rules: Rules) -> dict[tuple[str, str], list[Threshold]]:
    grouped: dict[tuple[str, str], list[Threshold]] = {}
    for step in rules.thresholds + rules.floor:
        grouped.setdefault((step.category, step.origin), []).append(step)
    return grouped


def _rest(rules: Rules) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in _others(rules):
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid


def _others(rules: Rules) -> Iterator[tuple[str, str]]:
    unscanned = f"{rules.unscanned_action.value}, unscanned"
    waits = rules.on_unavailable is OnUnavailable.HOLD
    degrade = f"degrade after {rules.degrade_after_s:g} s: {unscanned}"
    yield "guard away", "hold: wait for it" if waits else degrade
    yield "partly scanned", f"{rules.partial_action.value} at least"
    yield "retention", rules.retention.value


def _document(
    policy: Policy, found: dict[Kind, Rules], tenant: str, route: str | None
) -> dict[str, Any]:
    ref = policy.ref
    return {
        "policy": {"id": ref.id, "version": ref.version, "digest": ref.digest},
        "taxonomy": policy.taxonomy,
        "tenant": tenant,
        "route": route,
        "tenant_known": policy.knows(tenant),
        "rules": {kind.value: _rules_document(rules) for kind, rules in found.items()},
    }


def _rules_document(rules: Rules) -> dict[str, Any]:
    return {
        "thresholds": [
            {
                "category": step.category,
                "action": step.action.value,
                "at": step.at,
                "origin": step.origin,
            }
            for step in rules.thresholds + rules.floor
        ],
        "on_unavailable": rules.on_unavailable.value,
        "degrade_after_s": rules.degrade_after_s,
        "unscanned_action": rules.unscanned_action.value,
        "partial_action": rules.partial_action.value,
        "retention": rules.retention.value,
    }
