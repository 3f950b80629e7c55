"""The tritonserver that the `nvidia-pytriton` wheel carries, made to run here.

Only the wheel's files are used, not its Python package: server 2.51.0 (24.10),
the python backend, and one stub process binary per Python version. The wheel
keeps the stub elsewhere than the server looks for it, hence the links.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import secrets
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from pipeline.embedded.process import EmbeddedFailed

_NEWEST_PYTHON = (3, 12)  # numpy below 2 has no build for 3.13
_BROKEN_NUMPY = 2
_OLDEST_GLIBC = (2, 35)  # the wheel is tagged manylinux_2_35
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonFiles:
    """Where the parts of one runnable tritonserver lie."""

    server: Path
    backends: Path
    caches: Path
    libraries: Path

    def environment(self) -> dict[str, str]:
        """Our own environment, changed as server and stub need it.

        The stub embeds libpython and takes its packages from the environment
        of the first `python3` on PATH; it ignores PYTHONPATH and PYTHONHOME.
        """
        own_bin = str(Path(sys.executable).parent)
        libpython = str(sysconfig.get_config_var("LIBDIR"))
        return {
            **os.environ,
            "PATH": os.pathsep.join((own_bin, os.environ.get("PATH", os.defpath))),
            "LD_LIBRARY_PATH": os.pathsep.join((str(self.libraries), libpython)),
        }


def find_triton(home: Path) -> TritonFiles:
    """Check this host and link the wheel's parts together under `home`.

    Raises EmbeddedFailed naming what is wrong with the host: the wheel is
    absent, or the Python, libpython, C library or numpy does not fit it.
    """
    _check_host()
    package = _package()
    parts = package / "tritonserver"
    stub = parts / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    backends = home / "triton" / f"backends-{_PYTHON}"
    _link(backends / "python", [*(parts / "backends" / "python").iterdir(), stub])
    return TritonFiles(
        server=parts / "bin" / "tritonserver",
        backends=backends,
        caches=parts / "caches",
        libraries=package.parent / "nvidia_pytriton.libs",
    )


def _package() -> Path:
    """The wheel's folder, found without importing it."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        remedy = "Install the extra that carries it: pip install 'sluice[embedded]'"
        raise EmbeddedFailed("Triton", "has no server on this machine", remedy=remedy)
    return Path(spec.submodule_search_locations[0])


def _check_host() -> None:
    for problem, remedy in (_platform_problem(), _python_problem(), _numpy_problem()):
        if problem:
            raise EmbeddedFailed("Triton", problem, remedy=remedy)


def _platform_problem() -> tuple[str, str]:
    """What the operating system lacks and what to do; empty: nothing."""
    remedy = "Use Debian 12, Ubuntu 22.04 or newer, or a Triton server that runs elsewhere"
    name, version = platform.libc_ver()
    if sys.platform != "linux" or name != "glibc":
        return "needs Linux with the GNU C library", remedy
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_GLIBC:
        return f"needs glibc 2.35 or newer, this is {version}", remedy
    return "", ""


def _python_problem() -> tuple[str, str]:
    """Why this Python cannot be embedded by the stub; empty: it can."""
    if sys.version_info[:2] > _NEWEST_PYTHON:
        return f"cannot embed Python {_PYTHON}", "Use Python 3.11 or 3.12"
    library = f"libpython{_PYTHON}.so.1.0"
    try:
        ctypes.CDLL(str(Path(str(sysconfig.get_config_var("LIBDIR"))) / library))
    except OSError:
        remedy = (
            f"Install the package libpython{_PYTHON} (Debian, Ubuntu), or a Python built with"
            " --enable-shared (python.org images, uv and conda have one)"
        )
        return f"needs {library}, which this Python was built without", remedy
    return "", ""


def _numpy_problem() -> tuple[str, str]:
    """Whether numpy would crash the stub; empty: it would not.

    The stub of 24.10 reads the item size of numpy 2 arrays as 0 and dies at
    the first text tensor (fixed upstream in 24.11, which no wheel carries).
    """
    remedy = "Install numpy below 2: pip install 'numpy<2'"
    try:
        version = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        return "needs numpy in this environment", remedy
    if int(version.split(".")[0]) >= _BROKEN_NUMPY:
        return f"is crashed by numpy {version}", remedy
    return "", ""


def _link(folder: Path, targets: list[Path]) -> None:
    """Make `folder` hold exactly links to `targets`; safe to repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets:
        link = folder / target.name
        if link.is_symlink() and link.readlink() == target:
            continue
        # Made aside and renamed: another process may be starting from this folder.
        aside = folder / f".{target.name}.{secrets.token_hex(4)}"
        aside.symlink_to(target)
        aside.replace(link)
