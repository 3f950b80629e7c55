"""Whom a TLS connection trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

from pipeline.errors import Misconfigured


def trusting(ca_file: Path | None, *, setting: str) -> ssl.SSLContext:
    """A context that trusts a file's authorities, without one the system's.

    Raises Misconfigured naming the setting when the file cannot be read or holds none.
    """
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        why = "no certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise Misconfigured(
            f"{ca_file} cannot be read as certificates ({why})",
            remedy=f"Correct {setting}: a PEM file that this user may read",
        ) from error
