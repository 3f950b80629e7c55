"""Whose a listening port is, asked of the kernel.

That something answers on a port proves little: another stack may have chosen
the same one a moment earlier. https://docs.kernel.org/networking/proc_net_tcp.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # a JVM listens with IPv6 sockets
_LISTEN = "0A"


def listens(group: int, port: int) -> bool:
    """Whether a process of that process group listens on `port`.

    True as well when the kernel does not let us look into one of them.
    """
    sockets = set(_listening(port))
    try:
        return any(link in sockets for pid in _members(group) for link in _open_files(pid))
    except PermissionError:
        return True


def _listening(port: int) -> Iterator[str]:
    """The sockets that listen on `port`, as a descriptor's link shows them."""
    for table in filter(Path.exists, _TABLES):
        for line in table.read_text().splitlines()[1:]:
            _number, local, _remote, state, *rest = line.split()
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                yield f"socket:[{rest[5]}]"


def _members(group: int) -> Iterator[int]:
    """The living processes of a group; one that is only unreaped has no files."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _parent, its = (process / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its) == group and state not in "ZX":
                yield int(process.name)


def _open_files(pid: int) -> Iterator[str]:
    """What the descriptors of a process lead to; nothing once it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since the folder was listed
                yield str(descriptor.readlink())
