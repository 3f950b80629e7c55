"""What every service is put together from: guards, policy, schemas, a scorer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from pipeline import cascade, codec, policy_file, policy_history
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.keys import KeyFolder
from pipeline.adapters.triton import TritonClassifier
from pipeline.asking import CallLimits
from pipeline.errors import Misconfigured
from pipeline.events import Kind
from pipeline.guards import cards
from pipeline.policy import Policy
from pipeline.policy_history import PolicyRecord
from pipeline.resources import shipped
from pipeline.scoring import Guard, Scorer, uncovered_kinds
from pipeline.settings import GuardSettings, Settings
from pipeline.tokenization import Tokenizer


@asynccontextmanager
async def open_scorer(settings: Settings) -> AsyncIterator[Scorer]:
    """A scorer over the configured Triton, for one-off use."""
    guards = load_guards(settings.guards)
    async with TritonClassifier(settings.triton) as triton:
        yield scorer(guards, triton, settings, SystemClock())


def load_guards(settings: GuardSettings) -> list[Guard]:
    """The configured guards; raises Misconfigured naming card, key and remedy."""
    found = [load_guard(settings, name) for name in settings.names]
    if settings.first:
        found = cascade.put_first(load_guard(settings, settings.first), found)
    if missing := uncovered_kinds(found):
        raise Misconfigured(
            f"no configured guard judges {', '.join(sorted(missing))} messages",
            remedy="Add a guard with that role to guards.names",
        )
    return found


def load_guard(settings: GuardSettings, name: str) -> Guard:
    """One guard of the repository; raises Misconfigured naming card, key and remedy."""
    card = cards.load(settings.repository / name)
    if card.name != name:
        raise Misconfigured(
            f"the card in folder {name!r} names guard {card.name!r}",
            remedy="Give folder and card the same name",
        )
    return Guard(card=card, tokenizer=Tokenizer(card.tokenizer))


def load_policy(settings: Settings) -> Policy:
    """The configured policy; raises Misconfigured naming file, key and remedy."""
    return policy_file.parse(policy_text(settings), name=str(settings.policy.file))


def policy_text(settings: Settings) -> str:
    """The configured policy as written; raises Misconfigured naming the file."""
    path = settings.policy.file
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"policy {path} cannot be read ({type(error).__name__})", remedy="Correct policy.file"
        ) from error


def policy_documents(settings: Settings, at: datetime) -> list[PolicyRecord]:
    """The configured policy and the guards' cards, as the policies topic keeps them."""
    by, guards = settings.worker.id, settings.guards
    own = policy_history.of_policy(
        policy_text(settings), name=str(settings.policy.file), at=at, by=by, note=None
    )
    cards_of = (guards.repository / name / "card.toml" for name in guards.served)
    return [
        own,
        *(policy_history.of_card(path.read_bytes().decode(), at=at, by=by) for path in cards_of),
    ]


def check_servable(policy: Policy, guards: list[Guard], settings: Settings) -> None:
    """Raise Misconfigured when a policy may not be put in force with these guards and settings."""
    check_policy(policy, guards)
    require_key_folder(policy, settings)


def require_key_folder(policy: Policy, settings: Settings) -> None:
    """Raise Misconfigured when a policy keeps content encrypted and no folder holds keys."""
    if settings.audit.keys_folder is None and policy.sealing_tenants():
        raise Misconfigured(
            f"policy {policy.ref.id} keeps content encrypted, and there is no key folder",
            remedy="Set audit.keys_folder, then `sluice audit keys create`",
        )


def check_policy(policy: Policy, guards: list[Guard]) -> None:
    """Raise Misconfigured when the policy waits for a score that no guard gives that kind."""
    for kind in Kind:
        given = {
            label for guard in guards if kind in guard.card.roles for label in guard.card.labels
        }
        if missing := sorted(policy.categories(kind) - given):
            raise Misconfigured(
                f"policy {policy.ref.id} has a threshold for {missing[0]!r} of {kind.value}"
                " messages, which no guard scores for them",
                remedy=f"Remove it from the policy's {kind.value} tables,"
                f" or add a guard with role {kind.value} that does to guards.names",
            )


def open_keys(settings: Settings) -> KeyFolder | None:
    """The key folder, None where none is configured; raises Misconfigured if unusable."""
    folder = settings.audit.keys_folder
    if folder is None:
        return None
    keys = KeyFolder(folder)
    keys.check()
    return keys


def load_schemas() -> codec.Schemas:
    """The committed schemas."""
    return codec.load_schemas(shipped("schemas"))


def scorer(
    guards: list[Guard], triton: TritonClassifier, settings: Settings, clock: SystemClock
) -> Scorer:
    """A scorer of these guards over a Triton, within the configured bounds."""
    bounds = settings.guards
    limits = CallLimits(
        max_rows=bounds.max_rows,
        max_tokens=bounds.max_tokens,
        quick_max_tokens=bounds.quick_max_tokens,
        max_windows=bounds.max_windows,
        in_flight=bounds.calls_in_flight,
    )
    return Scorer(guards, triton, limits, clock)
