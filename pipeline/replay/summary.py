"""The result as one JSON document: `--json`, `summary.json`, and what the report shows. Pure.

It holds no time of its own making: the same slice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from pipeline.audit_log import Passed
from pipeline.proportions import wilson
from pipeline.replay.comparison import WHY
from pipeline.replay.gates import Bound
from pipeline.replay.groups import BY
from pipeline.replay.plan import Plan
from pipeline.replay.tally import NEWLY, Tally, actions

Document = dict[str, Any]


def document(
    plan: Plan,
    passed: Passed,
    tally: Tally,
    *,
    policy: str,
    bounds: Sequence[Bound],
    breached: Sequence[str],
) -> Document:
    """The whole result; `policy` names the one that decided anew."""
    return {
        "request": plan.request.as_json(),
        "slices": [
            {"partition": part.partition, "start": part.start, "end": part.end}
            for part in plan.slices
        ],
        "window": {"first": _moment(tally.first_ms), "last": _moment(tally.last_ms)},
        "policy": policy,
        "policies_then": dict(tally.policies_then.most_common()),
        "guards_then": dict(tally.guards_then.most_common()),
        "guards_now": dict(tally.guards_now.most_common()),
        "records": {
            "read": passed.records,
            "unreadable": passed.unreadable,
            "repeats": tally.repeats,
            "not_asked_for": tally.read - tally.repeats - tally.asked_for,
            "left_out": sum(tally.left_out.values()),
            "compared": tally.compared,
        },
        "left_out": {
            reason.value: {"records": count, "why": WHY[reason]}
            for reason, count in tally.left_out.most_common()
        },
        "unknown_policies": dict(tally.unknown_policies.most_common()),
        "lacking_scores": dict(sorted(tally.lacking.items())),
        "actions": [action.value for action in actions(tally)],
        "matrix": {
            then.value: {now.value: tally.matrix[then, now] for now in actions(tally)}
            for then in actions(tally)
        },
        "flips": _share(tally.flips, tally.compared),
        "newly": {what: _share(tally.newly(what), tally.compared) for what in NEWLY},
        "near": {
            "margin": tally.margin,
            "flips": _share(tally.near_flips, tally.flips),
            "records": _share(tally.near, tally.compared),
        },
        "groups": {by: _groups(tally, by) for by in BY},
        "determinism": {
            **tally.determinism.state(),
            "held": tally.determinism.held if tally.determinism.checked else None,
        },
        "rerun": _rerun(tally),
        "examples": tally.examples,
        "gates": {"asked_for": [str(bound) for bound in bounds], "breached": list(breached)},
    }


def as_bytes(found: Document) -> bytes:
    """The document as `summary.json` holds it."""
    return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _share(hits: int, of: int) -> Document:
    low, high = wilson(hits, of) if of else (None, None)
    return {"records": hits, "share": hits / of if of else None, "low": low, "high": high}


def _groups(tally: Tally, by: str) -> list[Document]:
    return [
        {
            "name": group.name,
            "records": group.records,
            "stricter": group.stricter,
            "milder": group.milder,
            "flips": _share(group.flips, group.records),
        }
        for group in tally.groups.groups(by)
    ]


def _rerun(tally: Tally) -> Document | None:
    found = tally.rescores
    if not found.rerun_s.count:
        return None
    return {
        "score_differences": found.differences.as_json(),
        "largest_by_category": dict(sorted(found.largest.items())),
        "inference_s": {"recorded": found.recorded_s.as_json(), "rerun": found.rerun_s.as_json()},
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
