"""Who is on which network, by what names: what the DNS server knows, and who may ask it what.

Pure. Told by the holder through ``server``, asked by ``answers``.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, NamedTuple


class Endpoint(NamedTuple):
    """A container's place on a network; ``dns`` are servers that it wants asked instead."""

    container: str
    network: str
    addresses: tuple[str, ...]
    names: tuple[str, ...]
    dns: tuple[str, ...]

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Endpoint:
        """Return one from the holder's message."""
        return cls(
            container=fields["container"],
            network=fields["network"],
            addresses=tuple(str(ip_address(text)) for text in fields["addresses"]),
            names=tuple(name.lower() for name in fields["names"]),
            dns=tuple(fields.get("dns", ())),
        )


class Client(NamedTuple):
    """Who asks: the networks whose names it may know, and where else its questions go."""

    networks: tuple[str, ...]
    forwarded: bool
    servers: tuple[str, ...] = ()


class Table:
    """All networks and endpoints."""

    def __init__(self) -> None:
        self._internal: dict[str, bool] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._by_name: dict[tuple[str, str], list[Endpoint]] = {}
        self._by_address: dict[tuple[str, str], Endpoint] = {}
        self._by_container: dict[str, list[Endpoint]] = {}

    def set_network(self, network: str, *, internal: bool) -> None:
        """Learn of a network."""
        self._internal[network] = internal

    def forget_network(self, network: str) -> None:
        """Forget a network and who is on it."""
        self._internal.pop(network, None)
        rest = {key: one for key, one in self._endpoints.items() if one.network != network}
        self._endpoints = rest
        self._index()

    def set_endpoint(self, key: str, endpoint: Endpoint) -> None:
        """Learn who is on a network."""
        self._endpoints[key] = endpoint
        self._index()

    def forget_endpoint(self, key: str) -> None:
        """Forget who has left."""
        self._endpoints.pop(key, None)
        self._index()

    def _index(self) -> None:
        self._by_name, self._by_address, self._by_container = {}, {}, {}
        for endpoint in self._endpoints.values():
            self._by_container.setdefault(endpoint.container, []).append(endpoint)
            for name in endpoint.names:
                self._by_name.setdefault((endpoint.network, name), []).append(endpoint)
            for address in endpoint.addresses:
                self._by_address[endpoint.network, address] = endpoint

    def knows(self, network: str, address: str) -> bool:
        """Tell whether a container on a network has an address."""
        return (network, address) in self._by_address

    def client(self, network: str, address: str) -> Client:
        """Return who asks from an address of a network; who has just left sees this one alone."""
        asking = self._by_address.get((network, address))
        places = self._by_container[asking.container] if asking else []
        networks = tuple(dict.fromkeys((network, *(one.network for one in places))))
        return Client(
            networks,
            forwarded=not all(self._internal.get(one, True) for one in networks),
            servers=asking.dns if asking else (),
        )

    def addresses(self, name: str, networks: Iterable[str]) -> list[str] | None:
        """Return the addresses of all that are called ``name``, None if nobody is."""
        found = [one for network in networks for one in self._by_name.get((network, name), ())]
        if not found:
            return None
        return list(dict.fromkeys(address for one in found for address in one.addresses))

    def names(self, address: str, networks: Iterable[str]) -> tuple[str, ...]:
        """Return the names of whoever has an address."""
        for network in networks:
            if found := self._by_address.get((network, address)):
                return found.names[:1]
        return ()
