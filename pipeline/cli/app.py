"""The root of the command line: options that hold everywhere, errors, exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Final

import typer

from pipeline.cli import console, version
from pipeline.cli.exits import Exit, code_of
from pipeline.errors import SluiceError

EXIT_CODES = (
    "Exit codes: 0 done; 1 failure; 2 usage, setting or policy is wrong; 3 a dependency"
    " does not answer; 4 nothing to do; 5 too many dead letters; 99 a gate was breached;"
    " 130 interrupted, and stopped in order; 129, 143 ended by SIGHUP, SIGTERM."
)

_YES: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
"""What typer takes for a switch that is on."""

root = typer.Typer(
    name="sluice",
    help="Streaming moderation: Kafka in, a guard model in Triton, accountable verdicts out.",
    epilog=EXIT_CODES,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@root.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", envvar="SLUICE_DEBUG")
    ] = False,
) -> None:
    """Options that hold for every command."""
    if show_version:
        typer.echo(version.text())
        raise typer.Exit
    if debug:
        os.environ["SLUICE_DEBUG"] = "1"
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; every error ends as one line and a documented exit code."""
    try:
        # Here, so that Ctrl-C during the imports ends as quietly as later.
        from pipeline.cli import commands

        commands.register(root)
        code = root(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        console.note("interrupted")
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:
        _explain(error)
        sys.exit(_code(error))
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _explain(error: Exception) -> None:
    if os.environ.get("SLUICE_DEBUG", "").strip().lower() in _YES:
        console.err.print_exception()
    elif isinstance(error, SluiceError):
        console.error(str(error))
    elif hasattr(error, "format_message"):  # usage errors of the vendored click
        console.error(f"{error.format_message().rstrip('.')}. Try: sluice --help")
    else:
        name = type(error).__name__
        console.error(f"unexpected {name}. Run again with `sluice --debug ...` and report it")


def _code(error: Any) -> int:
    if isinstance(error, SluiceError):
        return code_of(error)
    return int(getattr(error, "exit_code", Exit.FAILURE))
