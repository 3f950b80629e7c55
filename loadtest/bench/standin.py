"""A stand-in for Triton that speaks its real gRPC protocol at constant cost.

It answers every inference with the same low logits as soon as it can, so that
what is measured beside it is the worker and not a model. Run as
`python -m loadtest.bench.standin PORT LABELS DIGEST`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

LOGIT = -4.0


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The three calls a worker makes."""

    def __init__(self, labels: int, digest: str) -> None:
        self._labels = labels
        self._digest = digest

    async def ModelReady(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - its name
        """Always ready."""
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelConfig(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """A configuration that states the weights' digest."""
        answer = service_pb2.ModelConfigResponse()
        answer.config.name = request.name
        answer.config.parameters["digest"].string_value = self._digest
        return answer

    async def ModelInfer(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """The same logits for every row."""
        rows = request.inputs[0].shape[0]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")
        output = answer.outputs.add()
        output.name, output.datatype = "logits", "FP32"
        output.shape.extend([rows, self._labels])
        logits = np.full((rows, self._labels), LOGIT, dtype=np.float32)
        answer.raw_output_contents.append(logits.tobytes())
        return answer


async def serve(port: int, labels: int, digest: str) -> None:
    """Serve on loopback until cancelled."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(StandIn(labels, digest), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
