"""The embedded stack: a real Kafka broker and a real Triton on loopback.

Neither needs a container engine, a GPU or an account. Both end when the
process that started them ends, in whatever way it does.
"""

from __future__ import annotations

from pipeline.embedded.kafka import EmbeddedKafka
from pipeline.embedded.process import EmbeddedFailed
from pipeline.embedded.triton import EmbeddedTriton

__all__ = ["EmbeddedFailed", "EmbeddedKafka", "EmbeddedTriton"]
