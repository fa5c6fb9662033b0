"""Queries that go on to other servers, from the host's network: by UDP, or TCP where that asked.

Bounded: how many wait for an answer, of all, of each network and client, and how long. Called by
``listening``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Final

from rootless.files import read_text
from rootless.nameserver.answers import LARGEST, Forward, fits
from rootless.nameserver.shares import Place, Shares

_PORT: Final = 53
# resolv.conf(5) reads no more.
_MOST_SERVERS: Final = 3
_SECONDS: Final = 3.0
# Each takes a descriptor, of which a process has at least 1024.
_MOST: Final = 512
_MOST_OF_NETWORK: Final = 128
_MOST_OF_CLIENT: Final = 32


def host_servers() -> list[str]:
    """Return the servers that the host asks."""
    words = (line.split() for line in read_text("/etc/resolv.conf").splitlines())
    return [found[1] for found in words if len(found) > 1 and found[0] == "nameserver"]


class Forwarder:
    """The other servers, and what they are being asked."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = servers
        self._asking = Shares(_MOST_OF_CLIENT, _MOST_OF_NETWORK, _MOST)

    async def ask(
        self, forward: Forward, servers: Sequence[str], client: Place, *, tcp: bool
    ) -> bytes | None:
        """Return what the first server says that says anything; None if all are silent.

        At once, if too much of this client, its network or of all waits already.
        """
        if self._asking.full(client):
            return None
        with self._counted(client):
            for server in (servers or self._servers)[:_MOST_SERVERS]:
                with contextlib.suppress(OSError, TimeoutError, EOFError):
                    async with asyncio.timeout(_SECONDS):
                        return await (_by_tcp if tcp else _by_udp)(forward, server)
        return None

    @contextlib.contextmanager
    def _counted(self, client: Place) -> Iterator[None]:
        self._asking.take(client)
        try:
            yield
        finally:
            self._asking.give_back(client)


async def _by_udp(forward: Forward, server: str) -> bytes:
    loop = asyncio.get_running_loop()
    family, address = _address(server)
    # A socket, and so a port, of its own, and a number of its own: who answers has to know both.
    number = os.urandom(2)
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        asking.connect(address)
        asking.send(number + forward.query[2:])
        while True:
            response = await loop.sock_recv(asking, LARGEST)
            if fits(forward, number, response):
                return response


async def _by_tcp(forward: Forward, server: str) -> bytes:
    loop = asyncio.get_running_loop()
    family, address = _address(server)
    number = os.urandom(2)
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        await loop.sock_connect(asking, address)
        reader, writer = await asyncio.open_connection(sock=asking)
        try:
            query = number + forward.query[2:]
            writer.write(len(query).to_bytes(2, "big") + query)
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                response = await reader.readexactly(length)
                if fits(forward, number, response):
                    return response
        finally:
            writer.transport.abort()


def _address(server: str) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    (found, *_) = socket.getaddrinfo(server, _PORT, flags=socket.AI_NUMERICHOST)
    return found[0], found[4]
