"""A guard's card: what the worker must know to feed it and read its logits.

`card.toml` stands beside the guard's `config.pbtxt` in the model repository.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import SEEK_CUR, BytesIO
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import Misconfigured
from pipeline.events import Kind
from pipeline.guards import activations
from pipeline.guards.templates import ChatTemplate
from pipeline.taxonomy import CATEGORIES
from pipeline.windows import WindowSpec

_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Positive = Annotated[int, Field(gt=0)]
_Score = Annotated[float, Field(ge=0, le=1)]
# A calibration that is not a number would give scores that cross no threshold.
_Finite = Annotated[float, Field(allow_inf_nan=False)]

# Numbers of ONNX's protobuf: a model's metadata, an entry's key and value, a sized field.
_METADATA, _KEY, _VALUE, _SIZED = 14, 1, 2, 2


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Guard(_Section):
    name: str
    version: str
    title: str
    taxonomy: Literal["sluice-1"]
    labels: Annotated[list[str], Field(min_length=1)]
    activation: Literal["sigmoid", "softmax", "safe-unsafe"]
    classes: list[str] = []
    excluded: list[str] = []
    roles: list[Kind]
    license: str
    source: str

    @model_validator(mode="after")
    def _labels_exist(self) -> _Guard:
        unknown = sorted(set(self.labels) - set(CATEGORIES))
        if unknown:
            raise ValueError(f"label {unknown[0]!r} is not in taxonomy {self.taxonomy}")
        return self

    @model_validator(mode="after")
    def _classes_fit(self) -> _Guard:
        classes = self.classes or self.labels
        if missing := [label for label in self.labels if label not in classes]:
            raise ValueError(f"label {missing[0]!r} is not among the classes")
        if self.activation == "safe-unsafe" and not {"safe", "unsafe"} <= set(classes):
            raise ValueError("classes must hold 'safe' and 'unsafe'")
        if self.activation == "softmax" and len(set(classes)) < 2:
            raise ValueError("a softmax needs two classes; name the harmless one '-'")
        if shown := [label for label in self.labels if label in self.excluded]:
            raise ValueError(f"label {shown[0]!r} is excluded")
        return self


class _Input(_Section):
    layout: Literal["windows", "chat-template"] = "windows"
    tokenizer: str
    max_length: Annotated[int, Field(ge=8)]
    overlap: Annotated[int, Field(ge=0)]
    context_length: Annotated[int, Field(ge=0)]
    pad_id: Annotated[int, Field(ge=0)]
    cls_id: Annotated[int, Field(ge=0)] | None = None
    sep_id: Annotated[int, Field(ge=0)] | None = None
    buckets: Annotated[list[_Positive], Field(min_length=1)]
    template: str
    normalise: bool = False

    @model_validator(mode="after")
    def _shapes(self) -> _Input:
        if sorted(set(self.buckets)) != self.buckets or self.buckets[-1] != self.max_length:
            raise ValueError("buckets must ascend and end with max_length")
        if self.context_length + self.overlap + 4 > self.max_length:
            raise ValueError("context_length and overlap leave no room for text")
        if self.layout == "windows" and (self.cls_id is None or self.sep_id is None):
            raise ValueError("layout 'windows' needs cls_id and sep_id")
        return self


class _Calibration(_Section):
    scale: list[_Finite]
    bias: list[_Finite]


class _Cascade(_Section):
    """As a first stage: a window whose scores are all below is settled; what that cost on dev.

    `lost`: share of the positives caught by guard `before` that are settled instead;
    `settled`: share of all windows, `settled_harmless`: of the harmless ones.
    """

    settles_below: Annotated[float, Field(gt=0, lt=1)]
    before: str
    before_model: _Digest
    lost: _Score
    settled: _Score
    settled_harmless: _Score


class _Digests(_Section):
    model: _Digest
    tokenizer: _Digest
    template: _Digest | None = None


class Golden(_Section):
    """A text whose calibrated scores are known; the self-test at start-up."""

    role: Kind
    text: str
    prompt: str = ""
    scores: Mapping[str, _Score]
    tolerance: Annotated[float, Field(gt=0, le=0.5)] = 0.02


class _Document(_Section):
    guard: _Guard
    input: _Input
    calibration: _Calibration
    digests: _Digests
    cascade: _Cascade | None = None
    operating_points: Mapping[str, Mapping[str, _Score]]
    golden: Annotated[list[Golden], Field(min_length=1)]

    @model_validator(mode="after")
    def _widths(self) -> _Document:
        labels = len(self.guard.labels)
        if not len(self.calibration.scale) == len(self.calibration.bias) == labels:
            raise ValueError(f"calibration must have {labels} values, one per label")
        if self.input.layout == "chat-template" and self.digests.template is None:
            raise ValueError("layout 'chat-template' needs digests.template")
        return self

    @model_validator(mode="after")
    def _labels_known(self) -> _Document:
        named = {f"operating_points.{name}": point for name, point in self.operating_points.items()}
        named |= {f"golden.{n}.scores": each.scores for n, each in enumerate(self.golden)}
        for place, values in named.items():
            if unknown := [label for label in values if label not in self.guard.labels]:
                raise ValueError(f"label {unknown[0]!r} of {place} is not one of guard.labels")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A guard's card, checked against the files it names."""

    name: str
    version: str
    title: str
    taxonomy: str
    labels: tuple[str, ...]
    activation: str
    classes: tuple[str, ...]
    excluded: tuple[str, ...]
    roles: frozenset[Kind]
    license: str
    source: str
    tokenizer: Path
    window: WindowSpec
    pad_id: int
    buckets: tuple[int, ...]
    template_digest: str
    template: ChatTemplate | None
    normalise: bool
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    model_digest: str
    tokenizer_digest: str
    digest: str
    golden: tuple[Golden, ...]
    settles_below: float
    measured_before: str
    operating_points: Mapping[str, Mapping[str, float]]

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated scores [rows, labels] in 0..1 for logits [rows, classes]."""
        # What is not a number stays one; the caller refuses such a row by its logits.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            calibrated = np.clip(self._log_odds(logits) * self.scale + self.bias, -60.0, 60.0)
            return np.asarray(1.0 / (1.0 + np.exp(-calibrated)), dtype=np.float32)

    def health(self, logits: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """log(P(safe) + P(unsafe)) by row where the graph tells it; else None."""
        with np.errstate(invalid="ignore", over="ignore"):
            return activations.health(logits.astype(np.float64), self.classes)

    def _log_odds(self, logits: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        if self.activation == "sigmoid" and self.classes == self.labels:
            return logits
        wide = logits.astype(np.float64)
        match self.activation:
            case "sigmoid":
                return activations.sigmoid(wide, self.classes, self.labels)
            case "softmax":
                return activations.softmax(wide, self.classes, self.labels)
            case _:
                return activations.safe_unsafe(wide, self.classes, self.labels, self.excluded)


def load(folder: Path) -> Card:
    """The card in a guard's folder; raises Misconfigured naming key and remedy."""
    path = folder / "card.toml"
    try:
        raw = path.read_bytes()
        found = tomllib.loads(raw.decode())
    except OSError as error:
        raise Misconfigured(
            f"guard card {path} cannot be read ({error.strerror})",
            remedy="Set guards.repository to the folder that holds the guards",
        ) from error
    # Also a number of thousands of digits, and brackets in brackets without end.
    except (ValueError, RecursionError) as error:
        raise Misconfigured(
            f"guard card {path} is not TOML: {error}", remedy="Correct it"
        ) from error
    try:
        document = _Document.model_validate(found)
    except ValidationError as error:
        raise Misconfigured(f"guard card {path}: {_first(error)}", remedy="Correct it") from error
    _check(folder / document.input.tokenizer, "tokenizer", document.digests.tokenizer)
    return _card(folder, document, raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which guard a card is of, and the digest that verdicts carry."""

    name: str
    version: str
    digest: str


def identity(text: str) -> Identity:
    """Whose card a text is, also one of another release; raises Misconfigured."""
    try:
        document = tomllib.loads(text)
        digests, guard = document["digests"], document["guard"]
        digest = sha256(digests["model"].encode(), digests["tokenizer"].encode(), text.encode())
        return Identity(name=str(guard["name"]), version=str(guard["version"]), digest=digest)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Misconfigured(
            f"the text is not a guard's card ({type(error).__name__})", remedy="Correct it"
        ) from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _check(path: Path, what: str, digest: str | None) -> None:
    try:
        found = sha256(path.read_bytes()) if path.is_file() else "no such file"
    except OSError as error:  # a name too long, or no right to read it
        found = error.strerror or "it cannot be read"
    if found != digest:
        raise Misconfigured(
            f"{what} {path} does not match its card ({found})",
            remedy="Restore the guard's folder, or export the guard again",
        )


def _template(folder: Path, document: _Document) -> ChatTemplate | None:
    if document.input.layout != "chat-template":
        return None
    path = folder / document.input.template
    _check(path, "template", document.digests.template)
    return ChatTemplate.read(path)


def sha256(*parts: bytes) -> str:
    """`sha256:` and the hex digest of the parts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return "sha256:" + digest.hexdigest()


def sha256_of(path: Path) -> str:
    """`sha256:` and the hex digest of a file of any size."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def graph(folder: Path, card: Card) -> Path:
    """The card's ONNX graph, its weights checked; raises Misconfigured with a remedy."""
    path = folder / "1" / "model.onnx"
    if not path.is_file():
        raise Misconfigured(f"{path} is missing", remedy="Run `sluice guard export` first")
    remedy = "Restore the guard's folder, or export the guard again"
    if (found := sha256_of(path)) != card.model_digest:
        raise Misconfigured(
            f"{path} is not the graph of its card ({found}, the card says {card.model_digest})",
            remedy=remedy,
        )
    # Large weights lie beside the graph, which then names their digest.
    data = path.with_name(path.name + ".data")
    if (named := _data_digest(path)) and not (data.is_file() and sha256_of(data) == named):
        raise Misconfigured(f"{data} does not hold the weights that its graph names", remedy=remedy)
    return path


def _data_digest(graph: Path) -> str | None:
    """The digest that an ONNX graph names for weights beside it; needs no ONNX library."""
    with graph.open("rb") as file:
        for entry in _fields(file, _METADATA):
            key, value = (next(_fields(BytesIO(entry), n), b"") for n in (_KEY, _VALUE))
            if key == b"data_sha256":
                return value.decode()
    return None


def _fields(file: BinaryIO, wanted: int) -> Iterator[bytes]:
    """The strings or messages of one number in a protobuf message; others are skipped."""
    while (tag := _varint(file)) is not None:
        kind = tag & 7
        if kind == _SIZED:
            size = _varint(file) or 0
            if tag >> 3 == wanted:
                yield file.read(size)
            else:
                file.seek(size, SEEK_CUR)
        elif kind == 0:
            _varint(file)
        else:
            return  # no ONNX model has others at its top


def _varint(file: BinaryIO) -> int | None:
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            return value
    return None


def _card(folder: Path, document: _Document, raw: bytes) -> Card:
    guard, shape = document.guard, document.input
    return Card(
        name=guard.name,
        version=guard.version,
        title=guard.title,
        taxonomy=guard.taxonomy,
        labels=tuple(guard.labels),
        activation=guard.activation,
        classes=tuple(guard.classes or guard.labels),
        excluded=tuple(guard.excluded),
        roles=frozenset(guard.roles),
        license=guard.license,
        source=guard.source,
        tokenizer=folder / shape.tokenizer,
        window=WindowSpec(
            max_length=shape.max_length,
            overlap=shape.overlap,
            context_length=shape.context_length,
            cls_id=shape.cls_id or 0,
            sep_id=shape.sep_id or 0,
        ),
        pad_id=shape.pad_id,
        buckets=tuple(shape.buckets),
        template_digest=document.digests.template or sha256(shape.template.encode()),
        template=_template(folder, document),
        normalise=shape.normalise,
        scale=_vector(document.calibration.scale),
        bias=_vector(document.calibration.bias),
        model_digest=document.digests.model,
        tokenizer_digest=document.digests.tokenizer,
        digest=_identity(document, raw),
        golden=tuple(document.golden),
        settles_below=document.cascade.settles_below if document.cascade else 0.0,
        measured_before=document.cascade.before_model if document.cascade else "",
        operating_points=document.operating_points,
    )


def _identity(document: _Document, raw: bytes) -> str:
    """One digest for all that decides a score: weights, tokenizer and card."""
    digests = document.digests
    return sha256(digests.model.encode(), digests.tokenizer.encode(), raw)


def _vector(values: Sequence[float]) -> NDArray[np.float32]:
    vector = np.asarray(values, dtype=np.float32)
    vector.setflags(write=False)
    return vector
