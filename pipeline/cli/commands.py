"""Every command, gathered: the one list of what `sluice` can do."""

from __future__ import annotations

import typer

from pipeline.cli import (
    audit,
    classify,
    config,
    demo,
    dlq,
    doctor,
    evaluate,
    guard,
    loadtest,
    policy,
    policy_topic,
    publish,
    reconcile,
    replay,
    schemas,
    topics,
    up,
    verdicts,
    worker,
)


def register(root: typer.Typer) -> None:
    """Add all commands to the root, once, in the order help shows them."""
    if root.registered_commands:
        return
    root.command("demo")(demo.demo)
    root.command("up")(up.up)
    root.command("worker")(worker.worker)
    root.command("publish")(publish.publish)
    root.command("verdicts")(verdicts.verdicts)
    root.command("classify")(classify.classify)
    root.command("evaluate")(evaluate.evaluate)
    root.add_typer(guard.app, name="guard")
    root.add_typer(dlq.app, name="dlq")
    root.add_typer(audit.app, name="audit")
    root.command("reconcile")(reconcile.reconcile)
    root.command("replay")(replay.replay)
    root.add_typer(topics.app, name="topics")
    root.add_typer(schemas.app, name="schemas")
    root.add_typer(loadtest.app, name="loadtest")
    root.command("doctor")(doctor.doctor)
    policy_topic.register(policy.app)
    root.add_typer(policy.app, name="policy")
    root.add_typer(config.app, name="config")
