"""What every service is put together from: guards, policy, schemas, a scorer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline import codec, policy_file
from pipeline.adapters.clock import SystemClock
from pipeline.adapters.triton import TritonClassifier
from pipeline.errors import Misconfigured
from pipeline.guards import cards
from pipeline.policy import Policy
from pipeline.resources import shipped
from pipeline.scoring import CallLimits, Guard, Scorer, uncovered_kinds
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
    path = settings.policy.file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"policy {path} cannot be read ({type(error).__name__})", remedy="Correct policy.file"
        ) from error
    return policy_file.parse(text, name=str(path))


def check_policy(policy: Policy, guards: list[Guard]) -> None:
    """Raise Misconfigured when the policy waits for a score that no guard gives."""
    given = {label for guard in guards for label in guard.card.labels}
    if missing := sorted(policy.categories() - given):
        raise Misconfigured(
            f"policy {policy.ref.id} has a threshold for {missing[0]!r}, which no guard scores",
            remedy="Remove it, or add a guard that does to guards.names",
        )


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
        max_windows=bounds.max_windows,
        in_flight=bounds.calls_in_flight,
    )
    return Scorer(guards, triton, limits, clock)
