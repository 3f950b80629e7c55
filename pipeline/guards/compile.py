"""From a guard's ONNX graph to a TensorRT plan, with one profile per length bucket.

A plan fits the TensorRT that built it and the kind of GPU it was built on, so
it is built in the container release that serves it; `build.json` beside it
says what it is made of. TensorRT 10 and later are strongly typed: precision
comes from the graph. `tensorrt-rtx` has the same builder and needs no GPU, so
that a graph's way through the compiler can be tried anywhere; Triton's
TensorRT backend cannot load what it builds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import Misconfigured
from pipeline.guards import cards, precision
from pipeline.guards.cards import Card
from pipeline.guards.folder import MAX_ROWS

INPUTS: Final = ("input_ids", "attention_mask")
OUTPUT: Final = "logits"
_OPTIMAL_ROWS: Final = 32
_RELEASES: Final = ("NVIDIA_TRITON_SERVER_VERSION", "NVIDIA_TENSORRT_VERSION")
"""What the containers' own environment calls their release, YY.MM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to compile: the guard's folder and how."""

    folder: Path
    precision: str | None = None
    flavour: str | None = None
    serves_with: str | None = None
    max_rows: int = MAX_ROWS
    optimisation_level: int | None = None
    calibration: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What `build.json` tells about a plan."""

    plan: str
    flavour: str
    trt_version: str
    release: str | None
    compute_capability: str | None
    precision: str
    profiles: Sequence[Mapping[str, Sequence[int]]]
    onnx_sha256: str
    engine_sha256: str
    card_digest: str


def compile_plan(wanted: Wanted) -> Build:
    """Build plan and `build.json`; raises Misconfigured saying what does not fit, and why."""
    folder = wanted.folder
    card = cards.load(folder)
    trt, flavour = library(wanted.flavour)
    release = _release(wanted.serves_with)
    onnx = cards.graph(folder, card)
    ready, kind = precision.prepared(onnx, wanted.precision, wanted.calibration)
    profiles = list(profiles_of(card.buckets, wanted.max_rows))
    _check_gpu_profile(folder, len(profiles), wanted.max_rows)
    engine = build_engine(
        trt,
        ready,
        profiles,
        check=lambda network: check_network(trt, network, card),
        level=wanted.optimisation_level,
    )
    plan = folder / "1" / ("model.plan" if flavour == "tensorrt" else "model.rtx.plan")
    plan.write_bytes(engine)
    build = Build(
        plan=plan.name,
        flavour=flavour,
        trt_version=str(trt.__version__),
        release=release,
        compute_capability=_compute_capability(),
        precision=kind,
        profiles=profiles,
        onnx_sha256=card.model_digest,
        engine_sha256=cards.sha256_of(plan),
        card_digest=card.digest,
    )
    text = json.dumps(asdict(build), indent=2) + "\n"
    (folder / "1" / "build.json").write_text(text, encoding="utf-8")
    return build


def read_build(folder: Path) -> Build | None:
    """What was built for a guard, None if nothing readable."""
    try:
        return Build(**json.loads((folder / "1" / "build.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def stale(folder: Path, card: Card, build: Build) -> str:
    """Why a build no longer fits its card, empty if it does."""
    if build.onnx_sha256 != card.model_digest:
        return "built from another graph"
    plan = folder / "1" / build.plan
    if not plan.is_file():
        return f"{build.plan} is gone"
    return "" if cards.sha256_of(plan) == build.engine_sha256 else f"{build.plan} was changed"


def library(flavour: str | None) -> tuple[Any, str]:
    """TensorRT, or the RTX flavour where that is wanted or alone installed.

    Raises Misconfigured when neither is.
    """
    names = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
    if flavour is not None and flavour not in names:
        raise Misconfigured(f"no flavour {flavour!r}", remedy=f"Use one of {', '.join(names)}")
    for name in [flavour] if flavour else list(names):
        try:
            trt = __import__(names[name])
        except ImportError:
            continue
        # Meta packages import without their libraries; a builder tells the difference.
        if hasattr(trt, "Builder"):
            return trt, name
    raise Misconfigured(
        f"{flavour or 'TensorRT'} is not installed here",
        remedy="Compile in the TensorRT container of the release that serves the guard,"
        " or try the graph with `pip install tensorrt-rtx`",
    )


def _release(serves_with: str | None) -> str | None:
    """The container's release; raises Misconfigured when another one is to serve the plan."""
    found = next((os.environ[name] for name in _RELEASES if os.environ.get(name)), None)
    if serves_with is not None and found != serves_with:
        raise Misconfigured(
            f"a plan for Triton {serves_with} cannot be built in"
            f" {f'release {found}' if found else 'a place whose release is unknown'}:"
            " a plan loads only in the TensorRT that built it",
            remedy=f"Compile in the TensorRT container of release {serves_with}",
        )
    return found


def profiles_of(buckets: Sequence[int], max_rows: int) -> Iterator[dict[str, tuple[int, int, int]]]:
    """Rows and tokens (min, best, max) by bucket; a bucket begins where the last ended."""
    shortest = 1
    for bucket in buckets:
        rows = (1, min(_OPTIMAL_ROWS, max_rows), max_rows)
        yield {"rows": rows, "tokens": (shortest, bucket, bucket)}
        shortest = bucket + 1


def _check_gpu_profile(folder: Path, count: int, max_rows: int) -> None:
    """The configuration must fit the plan, or Triton leaves profiles out or does not load it."""
    path = folder / "configs" / "tensorrt.pbtxt"
    if not path.exists():
        return
    text = path.read_text("utf-8")
    listed = re.search(r"profile:\s*\[([^\]]*)\]", text)
    named = len(listed.group(1).split(",")) if listed else 0
    if named != count:
        raise Misconfigured(
            f"{path} names {named} optimisation profiles, the card's buckets make {count}",
            remedy=f"List the profiles 0 to {count - 1} in its instance_group",
        )
    batch = re.search(r"^max_batch_size:\s*(\d+)", text, re.MULTILINE)
    if batch and int(batch.group(1)) > max_rows:
        raise Misconfigured(
            f"{path} lets {batch.group(1)} rows into one call, the plan would take {max_rows}",
            remedy=f"Set its max_batch_size to {max_rows}, or raise --max-rows",
        )


def build_engine(
    trt: Any,
    onnx: Path,
    profiles: Sequence[Mapping[str, Sequence[int]]],
    *,
    check: Callable[[Any], None],
    level: int | None = None,
) -> bytes:
    """A plan's bytes; `check` may refuse the parsed network before the long build."""
    words = _Words(trt)
    builder = trt.Builder(words.logger)
    network = _network(trt, builder)
    parser = trt.OnnxParser(network, words.logger)
    if not parser.parse_from_file(str(onnx)):
        said = "; ".join(str(parser.get_error(n).desc()) for n in range(parser.num_errors))
        raise Misconfigured(f"TensorRT cannot read {onnx}: {said}", remedy="Export it again")
    check(network)
    config = builder.create_builder_config()
    if level is not None:
        config.builder_optimization_level = level
    for profile in profiles:
        config.add_optimization_profile(_optimisation(builder, profile))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Misconfigured(
            f"TensorRT built nothing from {onnx}: {words.last}",
            remedy="A builder without --flavour tensorrt-rtx needs a GPU with enough memory",
        )
    return bytes(engine)


def _network(trt: Any, builder: Any) -> Any:
    """An empty strongly typed network; TensorRT 8 cannot make one."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if typed is None:
        raise Misconfigured(
            f"TensorRT {trt.__version__} is too old", remedy="Use TensorRT 10 or later"
        )
    return builder.create_network(1 << int(typed))


def _optimisation(builder: Any, profile: Mapping[str, Sequence[int]]) -> Any:
    made = builder.create_optimization_profile()
    shapes = list(zip(profile["rows"], profile["tokens"], strict=True))
    for name in INPUTS:
        made.set_shape(name, *shapes)
    return made


def check_network(trt: Any, network: Any, card: Card) -> None:
    """Raise Misconfigured where graph and contract disagree: names, types, ranks, classes."""
    inputs = {each.name: each for each in map(network.get_input, range(network.num_inputs))}
    outputs = {each.name: each for each in map(network.get_output, range(network.num_outputs))}
    if set(inputs) != set(INPUTS):
        raise _differs("inputs", sorted(inputs), list(INPUTS))
    if set(outputs) != {OUTPUT}:
        raise _differs("outputs", sorted(outputs), [OUTPUT])
    for name, tensor in inputs.items():
        if tuple(tensor.shape) != (-1, -1):
            raise _differs(f"the shape of {name}", tuple(tensor.shape), "[rows, tokens], both free")
        if tensor.dtype not in {trt.DataType.INT64, trt.DataType.INT32}:
            raise _differs(f"the type of {name}", tensor.dtype, "INT64 or INT32")
    logits = outputs[OUTPUT]
    if logits.dtype != trt.DataType.FLOAT:
        raise _differs("the type of logits", logits.dtype, "FP32")
    if len(logits.shape) != 2 or logits.shape[1] not in {-1, len(card.classes)}:
        wanted = f"[rows, {len(card.classes)}], for the card's {len(card.classes)} classes"
        raise _differs("the shape of logits", tuple(logits.shape), wanted)


def _differs(what: str, found: object, wanted: object) -> Misconfigured:
    return Misconfigured(
        f"graph and guard contract disagree: {what} is {found}, it must be {wanted}",
        remedy="Export the guard again with `sluice guard export`, or correct its card",
    )


class _Words:
    """TensorRT's logger, which keeps the last error instead of printing."""

    def __init__(self, trt: Any) -> None:
        words, self.last = self, "it gave no reason"
        serious = {trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR}

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in serious:
                    words.last = message

        self.logger = Logger()


def _compute_capability() -> str | None:
    """`9.0` and the like of the first GPU, None where PyTorch sees none."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(0)
    return f"{major}.{minor}"
