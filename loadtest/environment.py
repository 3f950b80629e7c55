"""What a run ran on: processor, memory, versions, commit, load. No names, no addresses."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import psutil

_SHOWN: Final = (
    "sluice",
    "faust-streaming",
    "aiokafka",
    "tritonclient",
    "nvidia-pytriton",
    "onnxruntime",
    "tokenizers",
    "numpy",
    "hdrhistogram",
)
_LOOPS: Final = 5
_LOOP_TURNS: Final = 200_000


def describe() -> dict[str, Any]:
    """The machine, its load before the run, versions and the commit if there is one."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_loop_ms": round(_loop_ms(), 1),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "commit": _commit(),
        "versions": {name: version for name in _SHOWN if (version := _version(name))},
    }


def _loop_ms() -> float:
    """The same loop of Python everywhere, in ms, best of five.

    Two machines of one name, one machine on two days and two builds of one Python
    differ by up to half: without it their microseconds cannot be told apart.
    """
    best = float("inf")
    for _ in range(_LOOPS):
        began = time.perf_counter()
        kept, total = {}, 0
        for number in range(_LOOP_TURNS):
            kept[number & 255] = (number, total)
            total += len(kept)
        best = min(best, time.perf_counter() - began)
    return best * 1000.0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
