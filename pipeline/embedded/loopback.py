"""Free ports on 127.0.0.1 and the smallest questions asked of a port.

Nothing here keeps a connection open: an idle HTTP connection makes
tritonserver wait its whole exit timeout before it stops.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct

from pipeline.embedded.process import EmbeddedFailed

HOST = "127.0.0.1"

# Below Linux's ephemeral range (32768-60999). A port inside it can be taken by any outgoing
# connection while its server is down; worse, a client that keeps redialling such a port on
# loopback ends up connected to itself, and the server can never bind again.
PORT_RANGE = range(20_000, 32_000)

_ASK_TIMEOUT_S = 2.0


def free_ports(count: int) -> list[int]:
    """`count` distinct loopback ports (20000-31999) that nobody listens on.

    Raises OSError when there are not enough. Another process may still take
    one before it is used; the random choice makes that unlikely.
    """
    found: list[int] = []
    for port in random.sample(PORT_RANGE, len(PORT_RANGE)):
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise OSError(f"no {count} free ports between {PORT_RANGE[0]} and {PORT_RANGE[-1]}")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def require_free(name: str, port: int) -> None:
    """Raise EmbeddedFailed, naming the part, when `port` is taken."""
    if not is_free(port):
        problem = f"cannot listen on {HOST}:{port}: another process does"
        raise EmbeddedFailed(name, problem, remedy="Stop that process or choose another port")


async def http_status(port: int, path: str) -> int | None:
    """The status of `GET path`, None when the port does not answer HTTP.

    No proxy of the environment is asked: it would look on its own loopback.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    answer = await _ask(port, request.encode(), size_bytes=12)
    if answer is None or not answer.startswith(b"HTTP/1."):
        return None
    return int(answer[9:12])


async def kafka_brokers(port: int) -> int:
    """How many brokers the cluster behind `port` reports; 0: not serving yet.

    Sends Metadata v1 for no topic and reads the length of the broker list:
    https://kafka.apache.org/protocol.html#The_Messages_Metadata
    """
    correlation, client = 1, b"sluice"
    header = struct.pack(">hhih", 3, 1, correlation, len(client)) + client
    body = header + struct.pack(">i", 0)
    answer = await _ask(port, struct.pack(">i", len(body)) + body, size_bytes=12)
    if answer is None:
        return 0
    _size, echoed, brokers = struct.unpack(">iii", answer)
    return int(brokers) if echoed == correlation else 0


async def _ask(port: int, request: bytes, *, size_bytes: int) -> bytes | None:
    """The first bytes of the answer; None when there is none in two seconds."""
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(request)
                return await reader.readexactly(size_bytes)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
