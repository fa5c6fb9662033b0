"""Which addresses a container gets on a user network. Pure; for containers' ``connections``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from ipaddress import ip_address, ip_network

from rootless.errors import RlError
from rootless.networks.definition import Definition, Pool
from rootless.networks.wish import Wish


def check(definition: Definition, wish: Wish) -> None:
    """Raise RlError for an address that a container cannot have on this network."""
    for address in filter(None, (wish.ip, wish.ip6)):
        pool = _pool_of(definition, address)
        if pool is None:
            listed = ", ".join(pool.subnet for pool in definition.pools)
            raise RlError(
                f"requested address {address} is not in the subnet {listed} of the network "
                f"{definition.name}"
            )
        subnet, found = ip_network(pool.subnet), ip_address(address)
        unusable = {subnet[0], ip_address(pool.gateway)}
        if found in unusable or (subnet.version == 4 and found == subnet[-1]):
            raise RlError(
                f"requested address {address} cannot be a container's: it is the network's own"
            )


def choose(
    definition: Definition,
    wish: Wish,
    before: Sequence[str],
    taken: Collection[str],
    wanted: Collection[str],
) -> tuple[str, ...]:
    """Return an address with its prefix length of each pool; RlError where none is to be had.

    ``before`` are those of the last time, which it has again if they are free. ``taken`` are in
    use, ``wanted`` those that others have asked for by number, which it gets only at last.
    """
    return tuple(
        f"{_choose(definition, pool, wish, before, taken, wanted)}/{length}"
        for pool in definition.pools
        for length in [pool.subnet.partition("/")[2]]
    )


def _choose(
    definition: Definition,
    pool: Pool,
    wish: Wish,
    before: Sequence[str],
    taken: Collection[str],
    wanted: Collection[str],
) -> str:
    if asked := wish.ip6 if pool.version == 6 else wish.ip:
        if asked in taken:
            raise RlError(
                f"requested address {asked} is already in use on the network {definition.name}"
            )
        return asked
    for address in (text.partition("/")[0] for text in before):
        if address not in taken and address not in wanted and address in set(_some(pool, address)):
            return address
    for avoided in (wanted, ()):
        for address in _hosts(pool):
            if address not in taken and address not in avoided:
                return address
    raise RlError(
        f"no free address is left on the network {definition.name} ({pool.ip_range or pool.subnet})"
    )


def _some(pool: Pool, address: str) -> Iterator[str]:
    """Yield an address if containers may have it of this pool."""
    part = ip_network(pool.ip_range or pool.subnet)
    subnet, found = ip_network(pool.subnet), ip_address(address)
    if found in part and found not in (subnet[0], subnet[-1]) and address != pool.gateway:
        yield address


def _hosts(pool: Pool) -> Iterator[str]:
    """Yield the addresses that containers may have, the lowest first."""
    part, subnet = ip_network(pool.ip_range or pool.subnet), ip_network(pool.subnet)
    first, last = int(part[0]), int(part[-1])
    ends = (int(subnet[0]), int(subnet[-1]))
    kind = type(subnet[0])
    for number in range(first, last + 1):
        if number not in ends and (address := str(kind(number))) != pool.gateway:
            yield address


def _pool_of(definition: Definition, address: str) -> Pool | None:
    found = ip_address(address)
    return next((pool for pool in definition.pools if found in ip_network(pool.subnet)), None)
