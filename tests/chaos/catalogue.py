"""What a fault is, in words and in deeds; the faults themselves are in `faults_*.py`.

A new fault is an async generator on a `Scene`: before its `yield` it breaks
something, after it the thing is whole again. `@fault(...)` says the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.embedded import EmbeddedKafka, EmbeddedTriton
from pipeline.embedded.stack import EmbeddedWorker
from tests.chaos.load import Load
from tests.support.places import Place
from tests.support.proxy import Proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A running stack under load, for a fault to break."""

    place: Place
    load: Load
    kafka: EmbeddedKafka
    triton: EmbeddedTriton
    repository: Path
    proxy: Proxy | None = None

    @property
    def workers(self) -> list[EmbeddedWorker]:
        """The workers, in the order of their first start."""
        return self.place.workers

    @property
    def worker(self) -> EmbeddedWorker:
        """The first worker."""
        return self.workers[0]


Breaking = Callable[[Scene], AsyncIterator[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an operator sees of a fault; every entry is checked.

    `check`: a readiness check that fails. `down`: a worker's health server
    does not answer, as Prometheus' `up` says. `said`: words in a worker's
    log. `metric`: one that rises by at least `rises`. `exit`: how the first
    worker ends by itself. `alert`: the rule that fires when it lasts; none
    where work goes on.
    """

    alert: str = ""
    check: str = ""
    down: bool = False
    said: tuple[str, ...] = ()
    metric: str = ""
    rises: float = 1.0
    exit: int | None = None


class Broker:
    """Which broker a fault wants: the shared one, or one of its own kind."""

    SHARED: Final = "shared"
    OWN: Final = "own"
    PROXIED: Final = "proxied"
    SMALL_DISK: Final = "small disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the catalogue.

    `lasts_s` from injection to healing, `short_s` in the short form (None: it
    is not part of it). `variables` are the workers' settings. `versions` are
    the guard's versions that verdicts must name. `unreadable`: outcomes cannot
    be read while the fault is in force. `malformed_every`: one in so many
    messages cannot be decoded, until the fault has it otherwise.
    """

    name: str
    does: str
    heals: str
    seen: Seen
    breaking: Breaking
    lasts_s: float
    short_s: float | None = None
    workers: int = 1
    broker: str = Broker.SHARED
    unreadable: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    versions: tuple[str, ...] = ("1",)
    malformed_every: int = 50
    recovers_within_s: float = 45.0
    memory_within_mib: float = 60.0
    unless: Callable[[], str] = str

    def injected(self, scene: Scene) -> AbstractAsyncContextManager[None]:
        """In force inside the block, healed after it."""
        return asynccontextmanager(self.breaking)(scene)


CATALOGUE: Final[dict[str, Fault]] = {}


def fault(name: str, **options: object) -> Callable[[Breaking], Breaking]:
    """Enter a fault into the catalogue; its docstring says what it does."""

    def enter(breaking: Breaking) -> Breaking:
        assert name not in CATALOGUE, name
        assert breaking.__doc__, name
        does = " ".join(breaking.__doc__.split())
        CATALOGUE[name] = Fault(name=name, does=does, breaking=breaking, **options)  # type: ignore[arg-type]
        return breaking

    return enter
