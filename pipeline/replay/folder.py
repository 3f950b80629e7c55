"""The folder a replay writes into: flips as they are found, and where it has got to.

`checkpoint.json` is replaced in one step and says how long `flips.jsonl` was
then; what stands behind that when a replay is resumed was never counted, and
is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self

import orjson

from pipeline.errors import Misconfigured

CHECKPOINT: Final = "checkpoint.json"
FLIPS: Final = "flips.jsonl"
SUMMARY: Final = "summary.json"
REPORT: Final = "report.html"


class Folder:
    """The out folder of one replay; a context manager."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Raises Misconfigured when it cannot be written, or holds what it should not."""
        self.path = path
        self._flips: BinaryIO | None = None
        self._private = self._made = False
        self.checkpoint = self._begin(resume=resume)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        if self._flips is not None:
            self._flips.close()

    def make_private(self) -> None:
        """Let only the owner read what is written, also where a file is there already.

        The folder itself is closed where it was made for this replay: another one is not ours.
        Raises Misconfigured when it cannot be done.
        """
        self._private = True
        try:
            if self._made:
                self.path.chmod(0o700)
            if self._flips is not None:
                os.fchmod(self._flips.fileno(), 0o600)
        except OSError as error:
            raise self._cannot(error) from error

    def open_flips(self) -> None:
        """Begin the file of flips, or go on where the checkpoint left it."""
        keep = int(self.checkpoint["flips_bytes"]) if self.checkpoint else 0
        try:
            self._flips = self._open(FLIPS, "r+b" if keep else "wb")
            self._flips.truncate(keep)
            self._flips.seek(keep)
        except OSError as error:
            raise self._cannot(error) from error

    def write(self, lines: Iterable[bytes]) -> None:
        """Add flips."""
        assert self._flips is not None
        try:
            self._flips.writelines(lines)
        except OSError as error:
            raise self._cannot(error) from error

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by this state, in one step."""
        assert self._flips is not None
        fresh = f"{CHECKPOINT}.new"
        try:
            self._flips.flush()
            os.fsync(self._flips.fileno())
            with self._open(fresh, "wb") as file:
                file.write(orjson.dumps({**state, "flips_bytes": self._flips.tell()}))
                file.flush()
                os.fsync(file.fileno())
            (self.path / fresh).replace(self.path / CHECKPOINT)
        except OSError as error:
            raise self._cannot(error) from error

    def finish(self, summary: bytes, report: str) -> None:
        """Write the result; then there is nothing left to resume."""
        assert self._flips is not None
        try:
            self._flips.flush()
            for name, content in ((SUMMARY, summary), (REPORT, report.encode())):
                with self._open(name, "wb") as file:
                    file.write(content)
            (self.path / CHECKPOINT).unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot(error) from error

    def _open(self, name: str, mode: Literal["wb", "r+b"]) -> BinaryIO:
        # Path.open takes no opener.
        return open(self.path / name, mode, opener=self._handle)

    def _handle(self, path: str, flags: int) -> int:
        handle = os.open(path, flags, 0o600 if self._private else 0o666)
        if self._private:
            os.fchmod(handle, 0o600)  # the mode above is only for a file that is new
        return handle

    def _begin(self, *, resume: bool) -> Mapping[str, Any] | None:
        path = self.path / CHECKPOINT
        try:
            self._made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            found: Any = orjson.loads(path.read_bytes()) if path.exists() else None
        except orjson.JSONDecodeError as error:
            raise Misconfigured(
                f"{path} is not a checkpoint", remedy="Remove it, and begin anew"
            ) from error
        except OSError as error:
            raise self._cannot(error) from error
        if found is None and resume:
            raise Misconfigured(
                f"{self.path} holds no unfinished replay", remedy="Leave --resume out"
            )
        if found is not None and not resume:
            raise Misconfigured(
                f"{self.path} holds an unfinished replay",
                remedy=f"Continue it with --resume, or remove {path.name} there to begin anew",
            )
        return found if isinstance(found, dict) else None

    def _cannot(self, error: OSError) -> Misconfigured:
        return Misconfigured(
            f"{self.path} cannot be written ({error.strerror})", remedy="Correct --out"
        )
