"""`sluice audit`: the audit log, event by event and as a whole."""

from __future__ import annotations

import typer

from pipeline.cli import audit_export, audit_keys, audit_show

app = typer.Typer(help="The audit log: one message's story, exports, keys.")

app.command("show")(audit_show.show)
app.command("export")(audit_export.export)
app.add_typer(audit_keys.app, name="keys")
