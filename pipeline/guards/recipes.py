"""What `sluice guard export` makes of each kind of checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from pipeline.errors import Misconfigured
from pipeline.events import Kind
from pipeline.guards import llama_guard
from pipeline.guards.llama_guard import Version
from pipeline.taxonomy import CATEGORIES

_ENCODER_BUCKETS: Final = (32, 64, 128, 256, 512)
# The template alone takes 200 to 240 tokens, so shorter buckets would stay empty.
_CHAT_BUCKETS: Final = (256, 320, 384, 512, 768, 1024)
_SHORTEST: Final = 8
"""Tokens of the shortest window that a card takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A kind of guard: classes in the order of its logits, and how text is framed."""

    name: str
    title: str
    activation: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    roles: tuple[str, ...]
    license: str
    buckets: tuple[int, ...]
    overlap: int
    context_length: int
    version: Version | None = None
    excluded: tuple[str, ...] = ()

    @property
    def max_length(self) -> int:
        """Tokens of the longest window."""
        return self.buckets[-1]

    def without(self, excluded: Sequence[str]) -> Recipe:
        """The same guard, not asked about some categories; raises Misconfigured."""
        if excluded and self.version is None:
            raise Misconfigured(
                f"a {self.name} guard has no categories in its prompt to exclude",
                remedy="Leave --exclude out; a policy decides which scores matter",
            )
        if unknown := [code for code in excluded if code not in self.labels[1:]]:
            raise Misconfigured(
                f"{self.name} does not know category {unknown[0]!r}",
                remedy=f"Use some of {', '.join(self.labels[1:])}",
            )
        kept = tuple(label for label in self.labels if label not in excluded)
        return replace(self, labels=kept, excluded=tuple(excluded))

    def up_to(self, max_length: int) -> Recipe:
        """The same guard with a longest window of `max_length` tokens; raises Misconfigured."""
        if max_length < _SHORTEST:
            raise Misconfigured(
                f"windows of {max_length} tokens leave no room for text",
                remedy=f"Give --max-length {_SHORTEST} or more",
            )
        shorter = tuple(bucket for bucket in self.buckets if bucket < max_length)
        return replace(
            self,
            buckets=(*shorter, max_length),
            overlap=min(self.overlap, max_length // 4),
            context_length=min(self.context_length, max_length // 4),
        )


def _chat(version: Version, title: str, license_name: str) -> Recipe:
    codes = llama_guard.categories(version)
    return Recipe(
        name=version.name,
        title=title,
        activation="safe-unsafe",
        classes=("safe", "unsafe", *codes, "*"),
        labels=("unsafe", *codes),
        roles=("prompt", "completion"),
        license=license_name,
        buckets=_CHAT_BUCKETS,
        overlap=64,
        context_length=256,
        version=version,
    )


# Prompt Guard 2 gives one malicious class for injections and jailbreaks together; it is
# published for 512 tokens, and its own example cuts long texts without an overlap.
_PROMPT_GUARD_2: Final = Recipe(
    name="prompt-guard-2",
    title="Prompt Guard 2: jailbreaks and injected instructions",
    activation="softmax",
    classes=("-", "jailbreak"),
    labels=("jailbreak",),
    roles=("prompt",),
    license="Llama 4 Community License",
    buckets=_ENCODER_BUCKETS,
    overlap=128,
    context_length=0,
)

RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        each.name: each
        for each in (
            _PROMPT_GUARD_2,
            _chat(llama_guard.LLAMA_GUARD_3_1B, "Llama Guard 3 1B", "Llama 3.2 Community License"),
            _chat(llama_guard.LLAMA_GUARD_3_8B, "Llama Guard 3 8B", "Llama 3.1 Community License"),
            _chat(llama_guard.LLAMA_GUARD_4, "Llama Guard 4 12B", "Llama 4 Community License"),
        )
    }
)


def classifier(classes: Sequence[str], activation: str, roles: Sequence[str]) -> Recipe:
    """A text classifier of one's own, `-` a class without a label; raises Misconfigured."""
    labels = tuple(dict.fromkeys(name for name in classes if name != "-"))
    if not labels:
        raise Misconfigured(
            "a classifier needs its classes", remedy="Say them in order: --classes=-,S10"
        )
    _known("--classes", labels, CATEGORIES)
    _known("--activation", [activation], ("softmax", "sigmoid"))
    _known("--roles", roles, [kind.value for kind in Kind])
    if activation == "softmax" and len(set(classes)) < 2:
        raise Misconfigured(
            "a softmax needs two classes", remedy="Name the harmless one '-': --classes=-,S10"
        )
    return Recipe(
        name="classifier",
        title="A text classifier",
        activation=activation,
        classes=tuple(classes),
        labels=labels,
        roles=tuple(roles),
        license="see the checkpoint",
        buckets=_ENCODER_BUCKETS,
        overlap=64,
        context_length=0,
    )


def _known(option: str, given: Sequence[str], known: Collection[str]) -> None:
    """Raise Misconfigured where an option says nothing, or what a card does not know."""
    for each in given or [""]:
        if each not in known:
            raise Misconfigured(
                f"{option} cannot be {each!r}", remedy=f"Choose from {', '.join(known)}"
            )


def named(name: str) -> Recipe:
    """A recipe by name; raises Misconfigured with the names there are."""
    if name not in RECIPES:
        raise Misconfigured(
            f"there is no kind of guard {name!r}",
            remedy=f"Use one of {', '.join(RECIPES)}, or classifier with --classes",
        )
    return RECIPES[name]
