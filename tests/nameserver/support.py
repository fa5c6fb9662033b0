"""The DNS server in a process of its own, on loopback addresses, and servers that it may ask."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from rootless.channel import Channel
from rootless.kernel import process
from rootless.nameserver import forwarding, listening
from rootless.nameserver.server import serve
from tests.support.waiting import PATIENCE

# What no test waits for in vain on a machine that stalls.
_LONG = {"_SECONDS": PATIENCE, "_IDLE_SECONDS": PATIENCE}
FRONT, BACK = "127.0.1.1", "127.0.2.1"
"""Where the server listens on two networks."""
WEB, DB, BOTH, STRANGER = "127.0.1.2", "127.0.1.3", "127.0.1.4", "127.0.1.9"
"""Addresses of the network front; the container `both` is on both."""


class Running(NamedTuple):
    """The server: its process, the holder's end of its channel, and its ports."""

    child: process.Child
    channel: Channel
    ports: dict[str, int]

    def tell(self, **message: object) -> None:
        self.channel.send(message)

    def container(
        self, name: str, network: str, *addresses: str, also: tuple[str, ...] = (), **more: object
    ) -> None:
        """Let a container be on a network, and wait until the server knows."""
        self.tell(
            endpoint=f"{name} {network}", container=name, network=network,
            addresses=addresses, names=[name, *also], **more,
        )  # fmt: skip

    def ask(
        self,
        name: str,
        kind: str = "A",
        *,
        source: str = WEB,
        server: str = FRONT,
        tcp: bool = False,
        **options: object,
    ) -> dns.message.Message:
        """Return what a client at ``source`` is answered."""
        query = dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]
        port = self.ports[server]
        if tcp:
            return dns.query.tcp(query, server, PATIENCE, port, source)
        return dns.query.udp(query, server, PATIENCE, port, source)

    def addresses(self, name: str, kind: str = "A", **options: object) -> list[str]:
        """Return the addresses in an answer, in order, or the code that it has."""
        answer = self.ask(name, kind, **options)  # type: ignore[arg-type]
        if answer.rcode() != dns.rcode.NOERROR:
            return [dns.rcode.to_text(answer.rcode())]
        return sorted(record.to_text() for found in answer.answer for record in found)


@contextmanager
def running(servers: list[str] | None = None, port: int = 53, **bounds: float) -> Iterator[Running]:
    """Run the server with two networks; ``bounds`` replace those of its modules."""
    ours, theirs = Channel.pair()

    def main() -> int:
        for name, value in {"_PORT": port, **_LONG, **bounds}.items():
            module = forwarding if hasattr(forwarding, name) else listening
            assert hasattr(module, name)
            setattr(module, name, value)
        serve(theirs, servers or [])
        return 0

    child = process.fork(main, keep=[theirs.fileno()])
    theirs.close()
    try:
        ports = {}
        for network, address in (("front", FRONT), ("back", BACK)):
            with bound(address) as (by_udp, by_tcp):
                ports[address] = by_udp.getsockname()[1]
                fds = (by_udp.fileno(), by_tcp.fileno())
                ours.send({"network": network, "internal": network == "back"}, *fds)
        server = Running(child, ours, ports)
        server.container("web", "front", WEB, "fd00::2", also=("www", "Shared"))
        server.container("db", "front", DB, also=("shared",))
        server.container("both", "front", BOTH)
        server.container("both", "back", "127.0.2.4")
        server.container("deep", "back", "127.0.2.2")
        yield server
    finally:
        ours.close()
        if child.running:
            status = child.wait()
            assert status in (0, 137), "the server ended by an error"


@contextmanager
def bound(address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return sockets for UDP and TCP with the same free port."""
    while True:
        by_udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        by_udp.bind((address, 0))
        try:
            by_tcp = socket.create_server(by_udp.getsockname())
        except OSError:
            by_udp.close()
            continue
        with by_udp, by_tcp:
            yield by_udp, by_tcp
        return


Respond = Callable[[bytes], list[bytes]]


class Upstream:
    """A server that others ask: it counts them, and says what a test lets it say."""

    def __init__(self, respond: Respond, address: str = "127.0.0.53", port: int = 0) -> None:
        self.asked: list[bytes] = []
        self.asked_by_tcp = 0
        self._respond = respond
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, port))
        self.address, self.port = self._udp.getsockname()
        self._tcp = socket.create_server((self.address, self.port))
        self._threads = [threading.Thread(target=work) for work in (self._by_udp, self._by_tcp)]

    def __enter__(self) -> Upstream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Which wakes the threads, as closing would not.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self.address, self.port))
        self._tcp.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    def _by_udp(self) -> None:
        while True:
            query, client = self._udp.recvfrom(65535)
            if not query:
                return
            self.asked.append(query)
            for response in self._respond(query):
                self._udp.sendto(response, client)

    def _by_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file, contextlib.suppress(OSError):
                query = file.read(int.from_bytes(file.read(2), "big"))
                self.asked_by_tcp += 1
                for response in self._respond(query):
                    connection.sendall(len(response).to_bytes(2, "big") + response)


def says(address: str, count: int = 1) -> Respond:
    """Return a server that answers every question by an address, ``count`` records of it."""
    import dns.rrset

    def respond(query: bytes) -> list[bytes]:
        asked = dns.message.from_wire(query)
        response = dns.message.make_response(asked, recursion_available=True)
        first, _, last = address.rpartition(".")
        texts = [f"{first}.{int(last) + number}" for number in range(count)]
        response.answer = [dns.rrset.from_text(asked.question[0].name, 60, "IN", "A", *texts)]
        return [response.to_wire(max_size=65535)]

    return respond


def silent(query: bytes) -> list[bytes]:
    """Answer nothing."""
    return []
