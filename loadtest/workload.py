"""A workload: what to send, how fast, and what must hold. Read from TOML."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from loadtest.thresholds import Threshold, parse
from pipeline.errors import Misconfigured

SAVED: Final = Path(__file__).with_name("workloads")

Rate = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0, le=100_000_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Constant(_Part):
    """`rate_per_s` for `duration_s`, or for so many `messages`."""

    mode: Literal["rate"]
    rate_per_s: Rate
    duration_s: Seconds | None = None
    messages: Count | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Constant:
        if (self.duration_s is None) == (self.messages is None):
            raise ValueError("give either duration_s or messages")
        return self


class Ramp(_Part):
    """From one rate to another, evenly over `duration_s`."""

    mode: Literal["ramp"]
    from_per_s: Rate
    to_per_s: Rate
    duration_s: Seconds


class Sweep(_Part):
    """Each rate for `step_s`; `sluice loadtest sweep` measures the steps apart."""

    mode: Literal["sweep"]
    rates_per_s: Annotated[tuple[Rate, ...], Field(min_length=1, max_length=50)]
    step_s: Seconds


class Closed(_Part):
    """`concurrency` messages under way: the next is sent when one has its outcome."""

    mode: Literal["closed"]
    concurrency: Annotated[int, Field(gt=0, le=100_000)]
    messages: Count
    timeout_s: Seconds = 30.0


Load = Annotated[Constant | Ramp | Sweep | Closed, Field(discriminator="mode")]


class Texts(_Part):
    """Where texts come from; generated ones have log-normal lengths in characters."""

    source: Literal["samples", "generated"] = "samples"
    median_chars: Annotated[int, Field(gt=0, le=1_000_000)] = 200
    p95_chars: Annotated[int, Field(gt=0, le=1_000_000)] = 1000
    max_chars: Annotated[int, Field(gt=0, le=1_000_000)] = 20_000

    @model_validator(mode="after")
    def _ordered(self) -> Texts:
        if not self.median_chars <= self.p95_chars <= self.max_chars:
            raise ValueError("median_chars <= p95_chars <= max_chars must hold")
        return self


class Mix(_Part):
    """What the messages are: shares of kinds and of malformed ones, texts, wire form."""

    prompts: Share = 0.7
    malformed: Share = 0.0
    wire: Literal["avro", "json"] = "avro"
    texts: Texts = Texts()


class Keys(_Part):
    """How messages spread over conversations, whose id is the record's key."""

    distribution: Literal["none", "uniform", "zipf"] = "uniform"
    conversations: Count = 1000
    exponent: Annotated[float, Field(gt=1, le=5)] = 1.2


class Stack(_Part):
    """What an embedded stack is started with."""

    workers: Annotated[int, Field(ge=1, le=16)] = 1
    partitions: Annotated[int, Field(ge=1, le=1000)] = 4


class Validity(_Part):
    """When a run counts: how well the generator must have kept its schedule."""

    late_p99_ms: Annotated[float, Field(gt=0)] = 50.0
    sent_share: Share = 0.99


class Workload(_Part):
    """Everything a run needs to know, but for where the stack is."""

    question: Annotated[str, Field(min_length=1)]
    seed: int = 1
    generators: Annotated[int, Field(ge=1, le=64)] = 1
    arrivals: Literal["even", "poisson"] = "even"
    warmup_s: Annotated[float, Field(ge=0, le=600)] = 0.0
    prime_messages: Annotated[int, Field(ge=0, le=100_000)] = 0
    settle_s: Seconds = 60.0
    guard_calls: bool = False
    load: Load
    messages: Mix = Mix()
    keys: Keys = Keys()
    tenants: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: {"": 1.0})
    topics: dict[Literal["prompts", "completions", "verdicts", "audit", "dead_letters"], str] = (
        Field(default_factory=dict)
    )
    stack: Stack = Stack()
    validity: Validity = Validity()
    thresholds: tuple[str, ...] = ()

    @field_validator("thresholds")
    @classmethod
    def _readable(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            parse(text)
        return texts

    @field_validator("tenants")
    @classmethod
    def _some_tenant(cls, tenants: dict[str, float]) -> dict[str, float]:
        if not tenants:
            raise ValueError('name at least one tenant; "" is none')
        return tenants

    @property
    def limits(self) -> tuple[Threshold, ...]:
        """The thresholds, parsed."""
        return tuple(parse(text) for text in self.thresholds)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form: equal workloads, seed included, have equal digests."""
        document = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(document).hexdigest()


def find(name: str) -> Path:
    """The file of a workload by path or saved name; raises Misconfigured."""
    path = Path(name)
    if path.is_file():
        return path
    saved = SAVED / f"{name.removesuffix('.toml')}.toml"
    if saved.is_file() and saved.parent == SAVED:
        return saved
    raise Misconfigured(
        f"there is no workload {name!r}",
        remedy=f"Give a TOML file, or one of: {', '.join(saved_names())}",
    )


def saved_names() -> list[str]:
    """The names of the workloads that ship."""
    return sorted(path.stem for path in SAVED.glob("*.toml"))


def read(path: Path) -> Workload:
    """The workload in a file; raises Misconfigured naming the key and what is wrong."""
    try:
        return validated(tomllib.loads(path.read_text(encoding="utf-8")), str(path.name))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured(
            f"the workload {path.name} cannot be read: {error}", remedy="Correct the file"
        ) from None


def validated(document: dict[str, Any], name: str) -> Workload:
    """A workload from a parsed document; raises Misconfigured with every problem."""
    try:
        return Workload.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = "; ".join(f"{_where(each['loc'])}: {_what(each['msg'])}" for each in found)
        raise Misconfigured(
            f"the workload {name} is not valid: {problems}", remedy="Correct the file"
        ) from None


def _where(loc: tuple[int | str, ...]) -> str:
    # The discriminator's value is part of pydantic's path, but not of the file's.
    parts = [str(part) for part in loc]
    if parts[:1] == ["load"] and len(parts) > 1:
        del parts[1]
    return ".".join(parts) or "workload"


def _what(message: str) -> str:
    return message.removeprefix("Value error, ")
