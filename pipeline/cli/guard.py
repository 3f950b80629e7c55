"""`sluice guard`: bring a production guard behind the contract, and see what there is."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from pipeline.adapters.triton import TritonClassifier
from pipeline.cli import console, session, tables
from pipeline.cli.classify import short
from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.guards import cards, recipes
from pipeline.guards import compile as compiler
from pipeline.guards.cards import Card
from pipeline.settings import Settings

app = typer.Typer(
    name="guard",
    help="Export, compile, verify and list guard models.",
    rich_markup_mode="rich",
)

_Repository = Annotated[
    Path | None, typer.Option(help="Folder of the guards; default: guards.repository.")
]


@app.command("export")
def export_(
    source: Annotated[str, typer.Argument(help="Checkpoint folder, or its name on the hub.")],
    *,
    name: Annotated[str, typer.Option(help="The guard's name, and its folder's.")],
    kind: Annotated[
        str, typer.Option("--as", help=f"{', '.join(recipes.RECIPES)}, or classifier.")
    ],
    repository: _Repository = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    max_length: Annotated[int | None, typer.Option(help="Longest window, in tokens.")] = None,
    exclude: Annotated[str, typer.Option(help="Categories to leave out: S5,S13.")] = "",
    classes: Annotated[
        str, typer.Option(help="A classifier's labels in order, '-' for none: -,S10.")
    ] = "",
    activation: Annotated[
        str, typer.Option(help="A classifier's: softmax or sigmoid.")
    ] = "softmax",
    roles: Annotated[str, typer.Option(help="What a classifier judges.")] = "prompt,completion",
    health: Annotated[
        bool, typer.Option(help="Let a Llama Guard tell log(P(safe) + P(unsafe)).")
    ] = True,
) -> None:
    """Turn a Hugging Face checkpoint into a guard's folder that Triton can serve.

    Examples: sluice guard export meta-llama/Llama-Prompt-Guard-2-22M --as prompt-guard-2 --name pg
              sluice guard export ./Llama-Guard-3-1B --as llama-guard-3-1b --name lg3 \
                --precision bf16 --exclude S13
    """
    _require("torch", "transformers", "onnx")
    from pipeline.guards import export

    recipe = (
        recipes.classifier(_listed(classes), activation, _listed(roles))
        if kind == "classifier"
        else recipes.named(kind)
    )
    recipe = recipe.without(_listed(exclude))
    request = export.Request(
        source=source,
        name=name,
        recipe=recipe if max_length is None else recipe.up_to(max_length),
        repository=repository or session.begin().guards.repository,
        precision=precision,
        health=health,
    )
    made = export.export(request, console.note)
    for remark in made.remarks:
        console.note(f"note: {remark}")
    console.out.print(Text(str(made.folder)))
    console.note("next: `sluice guard verify`, then `sluice guard compile` where it will be served")


@app.command("compile")
def compile_(
    name: Annotated[str, typer.Argument(help="The guard's name.")],
    *,
    repository: _Repository = None,
    precision: Annotated[
        str | None, typer.Option(help="The graph's own, or fp8 or int8 through modelopt.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Samples for fp8 and int8: .npz with both inputs.")
    ] = None,
    flavour: Annotated[str | None, typer.Option(help="tensorrt or tensorrt-rtx.")] = None,
    serves_with: Annotated[
        str | None, typer.Option(help="Release (YY.MM) of the Triton that will serve it.")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, max=64, help="Rows in one call.")] = 64,
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="TensorRT's optimisation level.")
    ] = None,
) -> None:
    """Build the TensorRT plan, in the container release that serves it.

    Examples: sluice guard compile lg3 --serves-with 26.07
              sluice guard compile lg3 --flavour tensorrt-rtx
    """
    wanted = compiler.Wanted(
        folder=_folder(repository, name),
        precision=precision,
        flavour=flavour,
        serves_with=serves_with,
        max_rows=max_rows,
        optimisation_level=level,
        calibration=calibration,
    )
    build = compiler.compile_plan(wanted)
    console.out.print(Text(str(wanted.folder / "1" / build.plan)))
    console.note(
        f"{build.flavour} {build.trt_version}, {build.precision}: {short(build.engine_sha256)}"
    )
    if build.flavour != "tensorrt":
        console.note("note: Triton cannot load this flavour; it shows that the graph compiles")


@app.command("verify")
def verify_(
    name: Annotated[str, typer.Argument(help="The guard's name.")],
    *,
    checkpoint: Annotated[
        str | None, typer.Option(help="Compare with this checkpoint's own answers as well.")
    ] = None,
    repository: _Repository = None,
    bound: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Largest difference of a score: 0.02, or what rounding needs; a golden text's is"
            " never more than its card says.",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="In which the checkpoint is loaded.")] = "fp32",
    served: Annotated[
        bool, typer.Option(help="Ask the configured Triton, not ONNX Runtime.")
    ] = False,
) -> None:
    """Check that a guard says what its card and its checkpoint say.

    Examples: sluice guard verify lg3
              sluice guard verify lg3 --checkpoint ./Llama-Guard-3-1B --precision bf16 --served
    """
    from pipeline.guards import verify

    folder = _folder(repository, name)
    card = cards.load(folder)
    run = _served(card) if served else verify.onnx_run(folder)
    rows = [("golden", each) for each in verify.golden(card, run)]
    least = 0.02 if bound is None else bound
    # A golden text keeps its card's tolerance, as at the worker's start; a bound may narrow it.
    bounds = {"golden": 1.0 if bound is None else bound, "parity": least}
    if checkpoint is not None:
        _require("torch", "transformers")
        from pipeline.guards import parity

        reference = parity.reference(card, checkpoint, precision)
        # A bound that a person sets holds as it is; rounding only widens the usual one.
        if bound is None:
            bounds["parity"] = max(least, parity.tolerance(card, precision))
        rows += [("parity", each) for each in verify.parity(card, run, reference)]
    table = tables.table(
        ["texts", "no.", "label", "score", "expected", "off by"], right=("off by",)
    )
    for what, each in rows:
        table.add_row(
            what, str(each.text), each.label, f"{each.score:.4f}", f"{each.expected:.4f}",
            f"{each.difference:.5f}",
        )  # fmt: skip
    tables.show(table)
    for kind, allowed in bounds.items():
        verify.require([each for what, each in rows if what == kind], allowed, kind)
    console.note(f"{name}: {len(rows)} texts agree")


@app.command("list")
def list_(
    *,
    repository: _Repository = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the guards there are, what is built of them, and what Triton serves.

    Examples: sluice guard list
              sluice guard list --json
    """
    settings = session.begin()
    folder = repository or settings.guards.repository
    found = [_described(each) for each in sorted(folder.glob("*/card.toml"))]
    if not found:
        raise Misconfigured(f"{folder} holds no guard", remedy="Correct guards.repository")
    served = session.run(_serving(settings, [row["name"] for row in found]))
    rows = [{**row, "served": served[row["name"]]} for row in found]
    if as_json:
        console.print_json(rows)
        return
    table = tables.table(["guard", "version", "judges", "labels", "digest", "built", "served"])
    for row in rows:
        table.add_row(*(Text(str(row[key])) for key in _COLUMNS))
    tables.show(table)


_COLUMNS = ("name", "version", "roles", "labels", "digest", "built", "served")


def _described(path: Path) -> dict[str, str]:
    """A row for a guard's folder; a card that cannot be used is shown with its error."""
    try:
        card = cards.load(path.parent)
    except Misconfigured as error:
        unknown = dict.fromkeys(_COLUMNS, "?")
        return unknown | {"name": path.parent.name, "built": error.message}
    labels = ", ".join(card.labels)
    return {
        "name": card.name,
        "version": card.version,
        "roles": ", ".join(sorted(card.roles)),
        "labels": labels if len(card.labels) <= 3 else f"{len(card.labels)}: {labels}",
        "digest": short(card.digest),
        "built": _built(path.parent, card),
    }


def _built(folder: Path, card: Card) -> str:
    parts = []
    if (folder / "1" / "model.onnx").is_file():
        try:
            cards.graph(folder, card)
            parts.append("onnx")
        except Misconfigured:
            parts.append("onnx (not its card's)")
    if build := compiler.read_build(folder):
        problem = compiler.stale(folder, card, build)
        parts.append(f"{build.flavour} {build.trt_version}{f' ({problem})' if problem else ''}")
    return ", ".join(parts) or "nothing"


async def _serving(settings: Settings, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    async with TritonClassifier(settings.triton) as triton:
        for name in names:
            try:
                found[name] = "yes" if await triton.ready(name) else "no"
            except DependencyUnavailable:
                # One refusal tells it for all of them.
                return dict.fromkeys(names, f"no Triton at {settings.triton.url}")
    return found


def _served(card: Card) -> Callable[[Any, Any], Any]:
    """Logits from the configured Triton, whichever profile it runs."""
    settings = session.begin()

    async def ask(rows: list[list[int]], length: int) -> Any:
        async with TritonClassifier(settings.triton) as triton:
            answer = await triton.infer(card.name, rows, length=length, pad_id=card.pad_id)
            return answer.logits

    def run(ids: Any, mask: Any) -> Any:
        rows = [row[: int(kept.sum())].tolist() for row, kept in zip(ids, mask, strict=True)]
        return session.run(ask(rows, ids.shape[1]))

    return run


def _folder(repository: Path | None, name: str) -> Path:
    folder = (repository or session.begin().guards.repository) / name
    if not (folder / "card.toml").is_file():
        raise Misconfigured(f"there is no guard {name!r} in {folder.parent}",
                            remedy="`sluice guard list` shows those there are")  # fmt: skip
    return folder


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _require(*modules: str) -> None:
    """Raise Misconfigured when a module of the extra `guards` is missing."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise Misconfigured(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed",
            remedy="pip install 'sluice[guards]'",
        )
