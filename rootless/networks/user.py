"""User networks as they are run: values that the holder, the supervisors and the DNS server share.

Pure, and small. Made by containers' ``connections`` from what is on disk.
"""

from __future__ import annotations

from typing import NamedTuple


class Network(NamedTuple):
    """A network: a bridge, whose own addresses are the gateways, one for each subnet."""

    id: str
    name: str
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    internal: bool = False
    dns: bool = True
    mtu: int = 0
    """0 is the kernel's choice."""


class Attachment(NamedTuple):
    """One container's place on a network, which is named by its ID.

    ``addresses`` have prefix lengths. ``names`` are those that the DNS server knows the container
    by; ``dns`` are the servers that it asks for this container what it does not know itself.
    """

    network: str
    addresses: tuple[str, ...]
    mac: str
    interface: str
    names: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


def mac_of(address: str) -> str:
    """Return the MAC address of whoever has an IP address on a user network, always the same.

    So that neighbours who remember the one who had it before, know the next one, too.
    """
    from hashlib import sha256
    from ipaddress import ip_address

    packed = ip_address(address.partition("/")[0]).packed
    last = packed if len(packed) == 4 else sha256(packed).digest()[:4]
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + last)
