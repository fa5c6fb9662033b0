"""The sockets of the networks' servers, and the queries that come by them.

One client's flood is that client's alone: its queries wait in a queue of its own, which is short,
and every network has its turn, and in it every client. Who is not on the network is not heard: a
container can send from addresses that nobody has. Nothing that is received is kept without a
bound. Called by ``server``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Final, NamedTuple

from rootless.nameserver.answers import LARGEST, Forward, answer, forwarded
from rootless.nameserver.forwarding import Forwarder
from rootless.nameserver.shares import Place, Shares
from rootless.nameserver.table import Table

# A query takes no more; what is longer comes by TCP.
_LARGEST_UDP: Final = 1232
# Taken from a socket at once: reading costs little, so that a flood does not fill the socket.
_BATCH: Final = 512
_ANSWERED_AT_ONCE: Final = 16
_MOST_WAITING: Final = 65536
_MOST_WAITING_OF_NETWORK: Final = 1024
_MOST_WAITING_OF_CLIENT: Final = 16
_MOST_CONNECTIONS: Final = 128
_MOST_CONNECTIONS_OF_NETWORK: Final = 32
_MOST_CONNECTIONS_OF_CLIENT: Final = 8
_IDLE_SECONDS: Final = 10.0
# How long to accept nothing, when descriptors have run out.
_PAUSE_SECONDS: Final = 1.0


class _Query(NamedTuple):
    socket: socket.socket
    source: tuple[object, ...]
    data: bytes


class Listening:
    """All sockets of all networks.

    ``hear`` is called before queries are taken: what the holder said before a container was
    started is known when that asks.
    """

    def __init__(self, table: Table, forwarder: Forwarder, hear: Callable[[], None]) -> None:
        self._hear = hear
        self._table = table
        self._forwarder = forwarder
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, list[socket.socket]] = {}
        # Queries by network and client; who is at the head of a dictionary is next.
        self._waiting: dict[str, dict[Place, deque[_Query]]] = {}
        self._shares = Shares(_MOST_WAITING_OF_CLIENT, _MOST_WAITING_OF_NETWORK, _MOST_WAITING)
        self._working = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = Shares(
            _MOST_CONNECTIONS_OF_CLIENT, _MOST_CONNECTIONS_OF_NETWORK, _MOST_CONNECTIONS
        )

    def add(self, network: str, listening: socket.socket) -> None:
        """Answer what comes by a socket: bound for UDP, or listening for TCP."""
        listening.setblocking(False)
        self._sockets.setdefault(network, []).append(listening)
        self._watch(network, listening)

    def _watch(self, network: str, listening: socket.socket) -> None:
        by_udp = listening.type == socket.SOCK_DGRAM
        ready = self._receive if by_udp else self._accept
        self._loop.add_reader(listening.fileno(), ready, network, listening)

    def remove(self, network: str) -> None:
        """Close the sockets of a network."""
        for listening in self._sockets.pop(network, ()):
            self._loop.remove_reader(listening.fileno())
            listening.close()

    def _receive(self, network: str, listening: socket.socket) -> None:
        self._hear()
        for _ in range(_BATCH):
            try:
                data, source = listening.recvfrom(_LARGEST_UDP + 1)
            except OSError:
                # Nothing more, or news of a client that is gone.
                break
            client = (network, _text(source))
            if len(data) > _LARGEST_UDP or not self._table.knows(*client):
                continue
            if self._shares.full(client):
                continue
            self._shares.take(client)
            queues = self._waiting.setdefault(network, {})
            queues.setdefault(client, deque()).append(_Query(listening, source, data))
        if self._waiting and not self._working:
            self._working = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        """Answer some of what waits, a query of each network in turn, and of its clients."""
        for _ in range(_ANSWERED_AT_ONCE):
            if not self._waiting:
                break
            network = next(iter(self._waiting))
            queues = self._waiting.pop(network)
            client = next(iter(queues))
            queue = queues.pop(client)
            query = queue.popleft()
            self._shares.give_back(client)
            if queue:
                queues[client] = queue
            if queues:
                self._waiting[network] = queues
            self._answer(query, client)
        self._working = bool(self._waiting)
        if self._working:
            self._loop.call_soon(self._work)

    def _answer(self, query: _Query, client: Place) -> None:
        known = self._table.client(*client)
        found = answer(query.data, self._table, known, tcp=False)
        if isinstance(found, Forward):
            self._start(self._forward(query, found, known.servers, client))
        elif found is not None:
            _send(query, found)

    async def _forward(
        self, query: _Query, found: Forward, servers: tuple[str, ...], client: Place
    ) -> None:
        response = await self._forwarder.ask(found, servers, client, tcp=False)
        _send(query, forwarded(found, response))

    def _accept(self, network: str, listening: socket.socket) -> None:
        try:
            connection, source = listening.accept()
        except BlockingIOError:
            return
        except OSError:
            self._loop.remove_reader(listening.fileno())
            self._loop.call_later(_PAUSE_SECONDS, self._resume, network, listening)
            return
        self._hear()
        client = (network, _text(source))
        if not self._table.knows(*client) or self._connections.full(client):
            connection.close()
            return
        connection.setblocking(False)
        self._connections.take(client)
        self._start(self._serve(connection, client))

    def _resume(self, network: str, listening: socket.socket) -> None:
        if listening in self._sockets.get(network, ()):
            self._watch(network, listening)

    async def _serve(self, connection: socket.socket, client: Place) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=LARGEST)
            try:
                with contextlib.suppress(OSError, EOFError, TimeoutError):
                    while await self._serve_one(reader, writer, client):
                        pass
            finally:
                writer.transport.abort()
        finally:
            self._connections.give_back(client)

    async def _serve_one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: Place,
    ) -> bool:
        """Answer a query of a connection; False if it has come to its end."""
        async with asyncio.timeout(_IDLE_SECONDS):
            length = int.from_bytes(await reader.readexactly(2), "big")
            query = await reader.readexactly(length)
        self._hear()
        known = self._table.client(*client)
        found = answer(query, self._table, known, tcp=True)
        if isinstance(found, Forward):
            response = await self._forwarder.ask(found, known.servers, client, tcp=True)
            found = forwarded(found, response)
        if found is None:
            return False
        writer.write(len(found).to_bytes(2, "big") + found)
        async with asyncio.timeout(_IDLE_SECONDS):
            await writer.drain()
        return True

    def _start(self, work: Coroutine[object, object, None]) -> None:
        # The loop itself keeps no task alive.
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _text(source: tuple[object, ...]) -> str:
    """Return a client's address as the table has it; a link-local one without its interface."""
    return str(ip_address(str(source[0]).partition("%")[0]))


def _send(query: _Query, response: bytes) -> None:
    # A client that takes no answers asks again; a network may be gone.
    with contextlib.suppress(OSError):
        query.socket.sendto(response, query.source)
