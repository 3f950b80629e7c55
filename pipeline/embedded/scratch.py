"""A folder for one run of a stack, gone afterwards unless there is something to look into."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import Misconfigured


@contextmanager
def scratch(parent: Path, *, prefix: str, say: Callable[[str], None]) -> Iterator[Path]:
    """A new folder in `parent`; it stays, with its logs, only when the block failed.

    Raises Misconfigured when it cannot be made. `say` is told where logs are kept.
    """
    data = _made(parent, prefix)
    try:
        yield data
    except Exception:
        with contextlib.suppress(OSError):  # not empty: there are logs
            data.rmdir()
        if data.exists():
            say(f"logs are kept in {data}")
        raise
    except BaseException:  # interrupted: nothing to look into
        shutil.rmtree(data, ignore_errors=True)
        raise
    shutil.rmtree(data, ignore_errors=True)


def _made(parent: Path, prefix: str) -> Path:
    """Not named by the process id: ids repeat, and a killed run leaves its topics behind."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise cannot_write(parent, error) from error


def cannot_write(path: Path, error: OSError) -> Misconfigured:
    """The error that says which file or folder in SLUICE_HOME, why, and what to do."""
    return Misconfigured(
        f"{error.filename or path} cannot be written ({error.strerror})",
        remedy="Free space, or set SLUICE_HOME to a folder that this user may write",
    )
