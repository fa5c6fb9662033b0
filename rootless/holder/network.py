"""User networks as they run: a network namespace with a bridge each, while any container has it.

Owns which there are and who is connected; made with the first container, gone with the last. Of a
container it is given the network namespace for the moment of connecting. Called by ``server``.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from rootless.errors import RlError
from rootless.holder import errand, links
from rootless.holder.names import NameServer
from rootless.kernel import syscalls
from rootless.networks.user import Attachment, Network


class _Running(NamedTuple):
    """A network: its namespace, the sockets of its DNS server, and who is connected."""

    network: Network
    namespace: int
    listening: list[int]
    clients: set[int]


class Networks:
    """The service ``network``: {"join": …, "attachment": …, "container": ID} and {"leave": ID}."""

    def __init__(self) -> None:
        links.load()
        self._running: dict[str, _Running] = {}
        self._names = NameServer()

    def serve(
        self, client: int, message: dict[str, Any], fds: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """Connect a client's container, whose network namespace comes along, or disconnect it."""
        if "join" in message:
            network, place = Network(**message["join"]), Attachment(**message["attachment"])
            self._join(client, network, place, message["container"], fds[0])
        else:
            self._leave(client, self._running[message["leave"]], runs=True)
        return {}, []

    def left(self, client: int) -> None:
        """Disconnect it from all that it had."""
        for running in list(self._running.values()):
            if client in running.clients:
                self._leave(client, running)

    def watched(self) -> list[int]:
        """Return what says that the DNS server has ended."""
        return self._names.watched()

    def advance(self) -> None:
        """Have a DNS server again."""
        self._names.advance()

    def _join(
        self, client: int, network: Network, place: Attachment, container: str, namespace: int
    ) -> None:
        running = self._running.get(network.id) or self._make(network)
        if client in running.clients:
            raise RlError(f"the container is already connected to network {network.name}")
        running.clients.add(client)
        try:
            errand.run(
                lambda _: links.plug(
                    running.namespace, _port(client), namespace, network, place
                ),
                keep=[running.namespace, namespace],
            )  # fmt: skip
        except BaseException:
            self._leave(client, running)
            raise
        self._names.add_endpoint(
            _key(client, network),
            {
                "container": container,
                "network": network.id,
                "addresses": [address.partition("/")[0] for address in place.addresses],
                "names": place.names,
                "dns": place.dns,
            },
        )

    def _make(self, network: Network) -> _Running:
        (namespace,), *sockets = errand.run(
            lambda channel: links.make(channel, network), syscalls.CLONE_NEWNET
        )
        listening = [fd for fds in sockets for fd in fds]
        running = self._running[network.id] = _Running(network, namespace, listening, set())
        if network.dns:
            self._names.add_network(network.id, listening, internal=network.internal)
        return running

    def _leave(self, client: int, running: _Running, *, runs: bool = False) -> None:
        network = running.network
        running.clients.discard(client)
        self._names.remove_endpoint(_key(client, network))
        # With the network's namespace the interface goes too, but not at once: one that runs on may
        # want the name again.
        if running.clients or runs:
            # Its own namespace may have gone already, and this with it.
            with contextlib.suppress(RlError):
                errand.run(
                    lambda _: links.unplug(running.namespace, _port(client)),
                    keep=[running.namespace],
                )
        if running.clients:
            return
        del self._running[network.id]
        self._names.remove_network(network.id)
        errand.close([running.namespace, *running.listening])


def _port(client: int) -> str:
    return f"veth{client}"


def _key(client: int, network: Network) -> str:
    return f"{client}-{network.id}"
