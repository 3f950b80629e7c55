"""Names for folders that a shell leaves alone.

Triton's python backend puts the paths of its stub process and of the model
unquoted into a command for bash: a space in one of them ends every start.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

from pipeline.embedded.process import EmbeddedFailed


class PlainNames:
    """Links in the system's temporary folder, made where they are needed."""

    def __init__(self) -> None:
        self._links: Path | None = None

    def of(self, folder: Path) -> Path:
        """The folder's own path if a shell leaves it alone, otherwise a link to it.

        Raises EmbeddedFailed when the temporary folder's path is no better.
        """
        if _is_plain(folder):
            return folder
        if self._links is None:
            self._links = _make()
        link = self._links / f"{len(list(self._links.iterdir()))}"
        link.symlink_to(folder)
        return link

    def forget(self) -> None:
        """Remove the links."""
        if self._links is not None:
            shutil.rmtree(self._links, ignore_errors=True)
        self._links = None


def _make() -> Path:
    where = Path(tempfile.gettempdir())
    if not _is_plain(where):
        remedy = "Set TMPDIR to a folder without spaces or other special characters in its path"
        raise EmbeddedFailed("Triton", f"cannot use a path such as {where}", remedy=remedy)
    return Path(tempfile.mkdtemp(prefix="sluice-", dir=where))


def _is_plain(path: Path) -> bool:
    return shlex.quote(str(path)) == str(path)
