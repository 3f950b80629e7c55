"""The policy file: TOML in, a validated `Policy` out, or what to change.

The digest is the SHA-256 of the canonical form: the validated document as
JSON with sorted keys, so that spacing, comments and the order of tables do
not change it, and any rule does.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import Misconfigured
from pipeline.events import Action, Kind, PolicyRef, Retention
from pipeline.policy import OnUnavailable, Policy, Rules, Threshold
from pipeline.taxonomy import CATEGORIES, SLUICE_1

Score = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Steps(_Strict):
    """Thresholds of one category; the milder action must not come later."""

    flag: Score | None = None
    review: Score | None = None
    block: Score | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Steps:
        given = [at for at in (self.flag, self.review, self.block) if at is not None]
        if not given:
            raise ValueError("needs at least one of flag, review, block")
        if given != sorted(given):
            raise ValueError("must ascend: flag <= review <= block")
        return self


Categories = Mapping[str, Steps]


class _Sides(_Strict):
    """Thresholds for prompts and for completions, of categories that exist."""

    prompt: Categories = Field(default_factory=dict)
    completion: Categories = Field(default_factory=dict)

    @field_validator("prompt", "completion")
    @classmethod
    def _known(cls, categories: Categories) -> Categories:
        unknown = sorted(set(categories) - set(CATEGORIES))
        if unknown:
            known = ", ".join(CATEGORIES)
            raise ValueError(f"unknown category {unknown[0]!r}; the taxonomy has {known}")
        return categories


class Floor(_Sides):
    """What the organisation asks of everybody; no layer can weaken it."""


class Layer(_Sides):
    """What a tenant or a route may set; a missing key inherits."""

    on_unavailable: Literal["hold", "degrade"] | None = None
    degrade_after_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    unscanned_action: Literal["flag", "review", "block"] | None = None
    partial_action: Literal["allow", "flag", "review", "block"] | None = None
    retention: Literal["none", "hash", "plain", "encrypted"] | None = None


class Tenant(Layer):
    """A tenant's layer, and its routes' layers."""

    routes: Mapping[str, Layer] = Field(default_factory=dict)


class Default(Layer):
    """The layer everybody starts from; every key has a value."""

    on_unavailable: Literal["hold", "degrade"] = "hold"
    degrade_after_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    unscanned_action: Literal["flag", "review", "block"] = "review"
    partial_action: Literal["allow", "flag", "review", "block"] = "flag"
    retention: Literal["none", "hash", "plain", "encrypted"] = "hash"


Layers = list[tuple[str, Layer]]
"""Layers with the name each is known by, weakest first."""


class Document(_Strict):
    """A policy file as written."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[str, Field(min_length=1, max_length=100)]
    taxonomy: Literal["sluice-1"] = SLUICE_1
    unknown_tenant: Literal["default", "reject"] = "default"
    floor: Floor = Field(default_factory=Floor)
    default: Default
    tenants: Mapping[str, Tenant] = Field(default_factory=dict)


def parse(text: str, *, name: str) -> Policy:
    """The policy in `text`; raises Misconfigured naming file, key and remedy."""
    try:
        found = tomllib.loads(text)
    # Also a number of thousands of digits, and brackets in brackets without end.
    except (ValueError, RecursionError) as error:
        raise Misconfigured(
            f"policy {name} is not TOML: {error}", remedy="Correct that line"
        ) from error
    try:
        document = Document.model_validate(found)
    except ValidationError as error:
        raise Misconfigured(
            f"policy {name}: {_first_problem(error)}",
            remedy="Correct that key; `sluice policy check FILE` checks a file",
        ) from error
    return _build(document)


def digest(document: Document) -> str:
    """`sha256:` and the hex digest of the document's canonical form."""
    canonical = json.dumps(
        document.model_dump(mode="json", exclude_none=True),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{more}"


def _build(document: Document) -> Policy:
    ref = PolicyRef(id=document.id, version=document.version, digest=digest(document))
    base: Layers = [("default", document.default)]
    tenants, routes = {}, {}
    for tenant, layer in document.tenants.items():
        layers = [*base, (f"tenant {tenant}", layer)]
        tenants[tenant] = _by_kind(document, layers)
        for route, inner in layer.routes.items():
            routes[tenant, route] = _by_kind(
                document, [*layers, (f"route {tenant}/{route}", inner)]
            )
    return Policy(
        ref=ref,
        taxonomy=document.taxonomy,
        reject_unknown_tenants=document.unknown_tenant == "reject",
        defaults=_by_kind(document, base),
        tenants=tenants,
        routes=routes,
    )


def _by_kind(document: Document, layers: Layers) -> dict[Kind, Rules]:
    return {kind: _rules(kind, document.floor, layers) for kind in Kind}


def _rules(kind: Kind, floor: Floor, layers: Layers) -> Rules:
    def last(key: str) -> str:
        values = [getattr(layer, key) for _, layer in layers]
        return str(next(value for value in reversed(values) if value is not None))

    steps: dict[str, tuple[str, Steps]] = {}
    for origin, layer in layers:
        steps.update({code: (origin, step) for code, step in getattr(layer, kind.value).items()})
    return Rules(
        thresholds=_thresholds(steps),
        floor=_thresholds({c: ("floor", s) for c, s in getattr(floor, kind.value).items()}),
        on_unavailable=OnUnavailable(last("on_unavailable")),
        degrade_after_s=float(last("degrade_after_s")),
        unscanned_action=Action(last("unscanned_action")),
        partial_action=Action(last("partial_action")),
        retention=Retention(last("retention")),
    )


def _thresholds(steps: Mapping[str, tuple[str, Steps]]) -> tuple[Threshold, ...]:
    return tuple(
        Threshold(category=code, action=action, at=at, origin=origin)
        for code, (origin, step) in sorted(steps.items())
        for action, at in (
            (Action.FLAG, step.flag),
            (Action.REVIEW, step.review),
            (Action.BLOCK, step.block),
        )
        if at is not None
    )
