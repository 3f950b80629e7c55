"""The wire ids of our schemas where a registry gives them."""

from __future__ import annotations

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
