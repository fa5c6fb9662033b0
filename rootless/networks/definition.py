"""A user network as a person defines it: what it is called, its subnets, what it is to be.

Owns the rules for names, subnets and options, and how a definition is written in its file. Pure.
Called by ``definitions``, which keeps them, and by the command line, which shows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from rootless.errors import RlError
from rootless.naming import valid_name
from rootless.networks.programs import ADDRESS, ADDRESS6
from rootless.networks.user import Network

IPNetwork = IPv4Network | IPv6Network

# Modes of --network, ours and Podman's: no network can be called so.
RESERVED: Final = frozenset(
    "bridge container default host none ns pasta podman private slirp4netns".split()
)
_LONGEST_NAME: Final = 128
_MTU_NAMES: Final = ("mtu", "com.docker.network.driver.mtu")
_MTUS: Final = range(68, 65536)
_SMALLEST_MTU6: Final = 1280
# The private ones, /24 each; as Podman from 10.89.0.0 on, others where the host has a route to all
# of that.
_FREE: Final = (
    (int(ip_address("10.0.0.0")), range(89 << 8, 1 << 16)),
    (int(ip_address("172.16.0.0")), range(1 << 12)),
    (int(ip_address("192.168.0.0")), range(1 << 8)),
)
# Room for a gateway and one container.
_LONGEST_PREFIX: Final = {4: 30, 6: 126}
_NOT_FOR_NETWORKS: Final = tuple(
    map(
        ip_network,
        ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/16", "fe80::/10", "ff00::/8"),
    )
)
_WAYS_OUT: Final = (
    ip_network(f"{ADDRESS}/24", strict=False),
    ip_network(f"{ADDRESS6}/64", strict=False),
)


class Pool(NamedTuple):
    """A subnet, the bridge's address in it, and the part of it that containers get theirs from."""

    subnet: str
    gateway: str
    ip_range: str = ""

    @property
    def version(self) -> int:
        """The version of IP, 4 or 6."""
        return 6 if ":" in self.subnet else 4


class Definition(NamedTuple):
    """A user network; ``options`` are those of -o, as they were given."""

    id: str
    name: str
    created: str
    pools: tuple[Pool, ...]
    internal: bool
    dns: bool
    labels: Mapping[str, str]
    options: Mapping[str, str]

    @property
    def ipv6(self) -> bool:
        """Whether containers get an address of IPv6."""
        return any(pool.version == 6 for pool in self.pools)

    @property
    def network(self) -> Network:
        """Return what running it takes."""
        return Network(
            id=self.id,
            name=self.name,
            subnets=tuple(pool.subnet for pool in self.pools),
            gateways=tuple(pool.gateway for pool in self.pools),
            internal=self.internal,
            dns=self.dns,
            mtu=mtu(self.options),
        )


def check_name(name: str) -> str:
    """Return a name that a network can have; RlError if it is none."""
    if not valid_name(name) or len(name) > _LONGEST_NAME:
        raise RlError(
            f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, "
            f"at most {_LONGEST_NAME}"
        )
    if name in RESERVED:
        raise RlError(
            f'cannot create a network with the name "{name}": it conflicts with a network mode'
        )
    return name


def check_options(options: Mapping[str, str], *, ipv6: bool) -> None:
    """Raise RlError for an option that a bridge here does not have."""
    for name, value in options.items():
        if name not in _MTU_NAMES:
            raise RlError(f"unsupported network option {name!r}: there is mtu")
        smallest = _SMALLEST_MTU6 if ipv6 else _MTUS.start
        if not re.fullmatch("[0-9]{1,5}", value) or not smallest <= int(value) < _MTUS.stop:
            raise RlError(
                f"invalid network option {name}={value}: expected {smallest} to {_MTUS.stop - 1}"
            )


def mtu(options: Mapping[str, str]) -> int:
    """Return the MTU among checked options, 0 where there is none."""
    return next((int(options[name]) for name in _MTU_NAMES if name in options), 0)


def make_pools(
    subnets: Iterable[str],
    gateways: Iterable[str],
    ranges: Iterable[str],
    *,
    ipv6: bool,
    taken: Sequence[IPNetwork],
    random: bytes,
) -> tuple[Pool, ...]:
    """Return what was asked for, and a free subnet of each version of IP that it leaves open.

    ``taken`` are the subnets of the host and of other networks. ``random`` are five bytes, of
    which a subnet of IPv6 is made, RFC 4193.
    """
    found = _parse_subnets(subnets, taken)
    if not any(subnet.version == 4 for subnet in found):
        found.insert(0, _free_subnet(taken))
    if ipv6 and not any(subnet.version == 6 for subnet in found):
        found.append(ip_network((b"\xfd" + random + bytes(10), 64)))
    return _pools(found, gateways, ranges)


def _pools(
    subnets: Iterable[IPNetwork], gateways: Iterable[str], ranges: Iterable[str]
) -> tuple[Pool, ...]:
    by_subnet = {subnet: Pool(str(subnet), str(subnet[1])) for subnet in subnets}
    chosen: set[IPNetwork] = set()
    for text in gateways:
        subnet = _home_of(text, "gateway", by_subnet)
        if subnet in chosen:
            raise RlError(f"subnet {subnet} has two gateways")
        chosen.add(subnet)
        by_subnet[subnet] = by_subnet[subnet]._replace(gateway=str(ip_address(text)))
    for text in ranges:
        part = _parse_range(text)
        subnet = _home_of(str(part[0]), "ip-range", by_subnet)
        if part.prefixlen < subnet.prefixlen:
            raise RlError(f"invalid ip-range {text}: it is larger than the subnet {subnet}")
        if by_subnet[subnet].ip_range:
            raise RlError(f"subnet {subnet} has two ip-ranges")
        by_subnet[subnet] = by_subnet[subnet]._replace(ip_range=str(part))
    return tuple(by_subnet.values())


def _parse_subnets(texts: Iterable[str], taken: Sequence[IPNetwork]) -> list[IPNetwork]:
    found: list[IPNetwork] = []
    for text in texts:
        subnet = _parse_subnet(text)
        if any(_overlap(subnet, other) for other in (*taken, *found)):
            raise RlError(
                f"subnet {subnet} is already used on the host or by another network "
                "(rl network inspect shows theirs)"
            )
        found.append(subnet)
    return found


def _parse_subnet(text: str) -> IPNetwork:
    try:
        if "/" not in text:
            raise ValueError("expected ADDRESS/PREFIX")
        subnet = ip_network(text, strict=False)
    except ValueError:
        raise RlError(f"invalid subnet {text!r}: expected CIDR notation as 10.89.3.0/24") from None
    if str(ip_address(text.partition("/")[0])) != str(subnet[0]):
        raise RlError(f"invalid subnet {text}: it should be {subnet}")
    if subnet.prefixlen > _LONGEST_PREFIX[subnet.version]:
        raise RlError(f"invalid subnet {text}: it has no room for a gateway and a container")
    if any(_overlap(subnet, other) for other in _NOT_FOR_NETWORKS):
        raise RlError(f"invalid subnet {text}: it holds addresses that no network can have")
    if any(_overlap(subnet, other) for other in _WAYS_OUT):
        raise RlError(f"invalid subnet {text}: containers have their way out of it, use another")
    return subnet


def _parse_range(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError:
        raise RlError(
            f"invalid ip-range {text!r}: expected CIDR notation as 10.89.3.128/25"
        ) from None


def _home_of(address: str, what: str, subnets: Iterable[IPNetwork]) -> IPNetwork:
    """Return the subnet that an address is a host's of."""
    try:
        found = ip_address(address)
    except ValueError:
        raise RlError(f"invalid {what} {address!r}: it is no IP address") from None
    for subnet in subnets:
        if found in subnet:
            if what == "gateway" and found in (subnet[0], subnet[-1]):
                raise RlError(f"invalid gateway {address}: it is no host's address in {subnet}")
            return subnet
    listed = ", ".join(map(str, subnets))
    raise RlError(f"{what} {address} is not in the subnet {listed}")


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _free_subnet(taken: Sequence[IPNetwork]) -> IPNetwork:
    for first, numbers in _FREE:
        for number in numbers:
            subnet = ip_network((first + (number << 8), 24))
            if not any(_overlap(subnet, other) for other in taken):
                return subnet
    raise RlError("no private subnet is free: choose one by --subnet")


def parse(data: Mapping[str, Any]) -> Definition:
    """Read what ``Definition._asdict()`` became as JSON.

    Whatever is in the file: ValueError, KeyError, TypeError or RlError if it is no definition.
    """
    listed = [Pool(*map(str, fields)) for fields in data["pools"]]
    pools = _pools(
        _parse_subnets((pool.subnet for pool in listed), ()),
        (pool.gateway for pool in listed),
        (pool.ip_range for pool in listed if pool.ip_range),
    )
    labels, options = _texts(data["labels"]), _texts(data["options"])
    found = Definition(
        id=str(data["id"]),
        name=check_name(data["name"]),
        created=str(data["created"]),
        pools=pools,
        internal=data["internal"] is True,
        dns=data["dns"] is True,
        labels=labels,
        options=options,
    )
    if not pools or not re.fullmatch("[0-9a-f]{64}", found.id):
        raise ValueError("it has no ID or no subnet")
    check_options(options, ipv6=found.ipv6)
    return found


def _texts(data: Any) -> dict[str, str]:
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise ValueError("labels and options are texts")
    return data
