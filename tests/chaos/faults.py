"""The whole catalogue, in the order of the table."""

from __future__ import annotations

from tests.chaos import faults_broker, faults_messages, faults_triton, faults_worker
from tests.chaos.catalogue import CATALOGUE, Fault

SOURCES = (faults_worker, faults_triton, faults_broker, faults_messages)
"""Importing one enters its faults."""

FAULTS: tuple[Fault, ...] = tuple(
    sorted(
        CATALOGUE.values(),
        key=lambda fault: [source.__name__ for source in SOURCES].index(fault.breaking.__module__),
    )
)
