"""Serve a guard's ONNX graph from Triton's python backend.

Tensors only: `input_ids` and `attention_mask` INT64 [rows, length] in,
`logits` FP32 [rows, classes] out. Texts never reach this process.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

# ONNX Runtime fuses what is quicker apart: its SkipLayerNormalization takes five times as
# long on a processor as the addition and the normalisation, BiasGelu a tenth longer.
SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]


class TritonPythonModel:
    """One ONNX Runtime session over this instance's share of the cores, fed in small chunks."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the weights against the configured digest and load them.

        Raises TritonModelException when the file is missing or differs.
        """
        folder = Path(args["model_repository"]) / args["model_version"]
        parameters = json.loads(args["model_config"]).get("parameters", {})
        self.chunk_rows = int(_parameter(parameters, "chunk_rows", "8"))
        # Short windows run in larger chunks: 32 of 16 tokens stay in the cache as 8 of 64 do.
        self.chunk_tokens = int(_parameter(parameters, "chunk_tokens", "512"))
        weights = folder / "model.onnx"
        _check_digest(weights, _parameter(parameters, "digest", ""))
        threads = int(_parameter(parameters, "threads", "0")) or _fair_share(args["model_config"])
        self.session = ort.InferenceSession(
            str(weights),
            _options(threads),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=SLOW_FUSIONS,
        )
        _check_data(weights, self.session.get_modelmeta().custom_metadata_map)
        self.max_tokens = int(_parameter(parameters, "max_tokens", "128"))
        self.vocabulary = int(_parameter(parameters, "vocabulary", "30522"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; a bad one gets an error of its own."""
        answers: list[Any] = [None] * len(requests)
        shapes: dict[int, list[tuple[int, Any, Any]]] = {}
        for place, request in enumerate(requests):
            try:
                ids, mask = _tensors(request, self.max_tokens, self.vocabulary)
            except ValueError as error:
                answers[place] = _failure(str(error))
            else:
                shapes.setdefault(ids.shape[1], []).append((place, ids, mask))
        for group in shapes.values():
            self._answer(group, answers)
        return answers

    def _answer(self, group: list[tuple[int, Any, Any]], answers: list[Any]) -> None:
        """Score requests of one length together and split the rows again."""
        try:
            logits = self._score(
                np.concatenate([ids for _, ids, _ in group]),
                np.concatenate([mask for _, _, mask in group]),
            )
        except Exception as error:  # the runtime's errors share no base class
            for place, _, _ in group:
                answers[place] = _failure(f"onnxruntime failed: {type(error).__name__}")
            return
        start = 0
        for place, ids, _ in group:
            rows = logits[start : start + len(ids)]
            start += len(ids)
            answers[place] = pb_utils.InferenceResponse([pb_utils.Tensor("logits", rows)])

    def _score(self, ids: Any, mask: Any) -> Any:
        """Run the graph over chunks small enough to stay in the cache."""
        rows = max(self.chunk_rows, self.chunk_tokens // ids.shape[1])
        parts = [
            self.session.run(
                ["logits"],
                {
                    "input_ids": ids[start : start + rows],
                    "attention_mask": mask[start : start + rows],
                },
            )[0]
            for start in range(0, len(ids), rows)
        ]
        return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


def _parameter(parameters: dict[str, Any], key: str, default: str) -> str:
    """Read one string parameter of config.pbtxt."""
    return str(parameters.get(key, {}).get("string_value", default))


def _fair_share(model_config: str) -> int:
    """The cores that each of the configured instances may use."""
    groups = json.loads(model_config).get("instance_group", [])
    instances = sum(int(group.get("count", 1)) for group in groups) or 1
    return max(1, len(os.sched_getaffinity(0)) // instances)


def _check_digest(weights: Path, expected: str) -> None:
    """Refuse weights that are not the ones the configuration names."""
    if not weights.is_file():
        raise pb_utils.TritonModelException(
            f"{weights.name} is missing from the model folder; restore it or run 'make guard'"
        )
    found = _digest(weights)
    if found != expected:
        raise pb_utils.TritonModelException(
            f"{weights.name} has digest {found} but config.pbtxt names {expected or 'none'}; "
            "restore the weights, or write the new digest to config.pbtxt and card.toml"
        )


def _check_data(weights: Path, metadata: dict[str, str]) -> None:
    """Refuse weights beside the graph that are not the ones the graph names."""
    data = weights.with_name(weights.name + ".data")
    if "data_sha256" in metadata and _digest(data) != metadata["data_sha256"]:
        raise pb_utils.TritonModelException(
            f"{data.name} is not what {weights.name} names; export the guard again"
        )


def _digest(path: Path) -> str:
    """`sha256:` and the hex digest of a file of any size."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return "sha256:" + digest.hexdigest()


def _options(threads: int) -> Any:
    """Session options: all threads for one request, idle ones sleep."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning wins a little on an idle machine and halves a shared one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _tensors(request: Any, max_tokens: int, vocabulary: int) -> tuple[Any, Any]:
    """Take both inputs; raise ValueError on a shape the graph cannot run."""
    ids = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy()
    mask = pb_utils.get_input_tensor_by_name(request, "attention_mask").as_numpy()
    if ids.shape != mask.shape:
        raise ValueError(f"input_ids is {ids.shape} but attention_mask is {mask.shape}")
    if not 1 <= ids.shape[1] <= max_tokens:
        raise ValueError(f"windows hold 1 to {max_tokens} tokens, this one {ids.shape[1]}")
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        raise ValueError(f"input_ids holds a token id outside 0..{vocabulary - 1}")
    return ids, mask


def _failure(message: str) -> Any:
    """Build an error response for one request."""
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(message))
