"""Seals for the worker, and says so where it cannot: metric, log line, readiness.

A tenant without an active key costs its texts in the audit log, never a
verdict: the event then holds the hash alone (`retention.keep`). The check
`keys` stays passed, because the worker judges all the same; its detail names
what to do.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

import structlog

from pipeline import metrics
from pipeline.errors import Misconfigured
from pipeline.health import Health
from pipeline.ports import Clock
from pipeline.sealing import Sealed, Sealer

log = structlog.get_logger(__name__)

CHECK: Final = "keys"
"""The readiness check that is told here."""

LOG_EVERY_S: Final = 60.0
_REMEMBERED: Final = 1000
_NAMED: Final = 3
_TENANT_CHARS: Final = 64


class Keys(Sealer, Protocol):
    """A sealer that can be asked beforehand."""

    def has_active(self, tenant: str) -> bool:
        """Whether the tenant's content can be sealed now; raises Misconfigured."""


class KeyWatch:
    """A `Sealer` that tells operators what it could not seal."""

    def __init__(self, sealer: Sealer, health: Health, clock: Clock) -> None:
        self._sealer = sealer
        self._health = health
        self._clock = clock
        self._without: set[str] = set()
        self._logged_s = float("-inf")
        self._untold = 0
        self._tell_health()

    def expect(self, keys: Keys, tenants: Collection[str]) -> None:
        """Look for the keys that the policy in force names tenants for; say which are missing."""
        missing = without_key(keys, tenants)
        if missing:
            log.warning("keys-missing", tenants=[_short(tenant) for tenant in missing])
        self._without = set(missing[:_REMEMBERED])
        self._tell_health()

    def seal(self, tenant: str, content: bytes, *, bound_to: str) -> Sealed:
        """As the sealer; every failure is told and raised as Misconfigured."""
        try:
            sealed = self._sealer.seal(tenant, content, bound_to=bound_to)
        except Misconfigured as error:
            self._failed(tenant, error.message, error.remedy)
            raise
        except Exception as error:  # whatever breaks a key store must not cost the verdict
            name = type(error).__name__
            self._failed(tenant, f"sealing failed ({name})", "See that the key folder is whole")
            raise Misconfigured(f"sealing failed ({name})", remedy="") from None
        if tenant in self._without:
            self._without.discard(tenant)
            self._tell_health()
        return sealed

    def _failed(self, tenant: str, why: str, remedy: str) -> None:
        metrics.NOT_SEALED.inc()
        self._untold += 1
        if tenant not in self._without and len(self._without) < _REMEMBERED:
            self._without.add(tenant)
            self._tell_health()
        now_s = self._clock.monotonic()
        if now_s - self._logged_s >= LOG_EVERY_S:
            log.error("content-not-sealed", messages=self._untold, why=why, remedy=remedy)
            self._logged_s, self._untold = now_s, 0

    def _tell_health(self) -> None:
        self._health.set(CHECK, ok=True, detail=_detail(sorted(self._without)))


def without_key(keys: Keys, tenants: Collection[str]) -> list[str]:
    """Those of the tenants whose content cannot be sealed, in order."""
    return sorted(tenant for tenant in tenants if not _has_key(keys, tenant))


def _has_key(keys: Keys, tenant: str) -> bool:
    try:
        return keys.has_active(tenant)
    except Misconfigured:
        return False


def _detail(without: list[str]) -> str:
    if not without:
        return "what the policy wants encrypted is"
    named = ", ".join(repr(_short(tenant)) for tenant in without[:_NAMED])
    more = f" and {len(without) - _NAMED:,} more" if len(without) > _NAMED else ""
    return (
        f"no usable key for tenant {named}{more}: the audit log keeps hashes only,"
        " until `sluice audit keys create`"
    )


def _short(tenant: str) -> str:
    return tenant if len(tenant) <= _TENANT_CHARS else f"{tenant[:_TENANT_CHARS]}..."
