"""The wire ids of our schemas where a registry gives them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pipeline import codec, schema_check
from pipeline.adapters.registry import Registry
from pipeline.errors import Misconfigured
from pipeline.resources import shipped
from pipeline.settings import Settings, TopicSettings


def subjects(topics: TopicSettings) -> dict[str, str]:
    """The registry's subject for each schema file: the topic's name and `-value`."""
    named = {
        codec.PROMPT: topics.prompts,
        codec.COMPLETION: topics.completions,
        codec.VERDICT: topics.verdicts,
        codec.AUDIT: topics.audit,
        codec.POLICY: topics.policies,
        codec.CHAIN_HEAD: topics.chain_heads,
    }
    return {schema: f"{topic}-value" for schema, topic in named.items()}


async def adopt(schemas: codec.Schemas, settings: Settings) -> None:
    """Write, and read again, under the ids a configured registry has for our schemas.

    Other ids that we ship are read as before, unless the registry has, or comes to have,
    another schema under one: the worker then asks for it as for any id that it does not know.
    Raises DependencyUnavailable when it does not answer, Misconfigured when
    it lacks a schema.
    """
    if not settings.registry.url:
        return
    registry, texts = Registry(settings.registry), schema_check.texts(shipped("schemas"))
    for name, subject in subjects(settings.topics).items():
        schema_id = await registry.lookup(subject, texts[name])
        if schema_id is None:
            raise Misconfigured(
                f"the registry at {settings.registry.url} lacks our schema of {subject}",
                remedy="Run `sluice schemas register`",
            )
        schemas.use_id(name, schema_id)
    await _doubt(schemas, registry, {schemas.ids[name] for name in texts})


async def _doubt(schemas: codec.Schemas, registry: Registry, ours: Collection[int]) -> None:
    """Doubt each id that we ship and that is, or can become, another's in the registry."""
    found = schemas.by_id if isinstance(schemas.by_id, _ById) else _ById(schemas.by_id)
    schemas.by_id = found
    for schema_id in set(found) - set(ours):
        # A registry counts up: an id that is free below ours stays free, and what was
        # written under it before there was a registry is read without a question.
        if schema_id > max(ours) or await registry.taken(schema_id):
            found.doubt(schema_id)


class _ById(dict[int, codec.Schema]):
    """Writer schemas by wire id, of which a doubted one is not listed, and yet found.

    Who looks for ids to ask a registry for goes by the list. Who reads finds what we ship
    until the answer takes its place: our own topics hold records from before the registry.
    """

    def __init__(self, known: Mapping[int, codec.Schema]) -> None:
        super().__init__(known)
        self._doubted: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        return iter([each for each in self.keys() if each not in self._doubted])

    def __setitem__(self, schema_id: int, schema: codec.Schema) -> None:
        self._doubted.discard(schema_id)
        super().__setitem__(schema_id, schema)

    def doubt(self, schema_id: int) -> None:
        """List an id no longer, until it is set again."""
        self._doubted.add(schema_id)
