"""What a person asks of a container's network, as values, beside its mode.

Pure. Made by the command line, a field of containers' Request, read by spec and
``etc``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rootless.errors import RlError
from rootless.networks.ports import Port

# The host as seen from a container, in --add-host.
HOST_GATEWAY: Final = "host-gateway"


class NetworkRequest(NamedTuple):
    """Ports, names and addresses that were asked for; ``add_hosts`` are "NAME:IP"."""

    published: tuple[Port, ...] = ()
    exposed: tuple[Port, ...] = ()
    publish_all: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    add_hosts: tuple[str, ...] = ()
    ip: str | None = None
    mac_address: str | None = None
    networks: tuple[Mapping[str, Any], ...] = ()
    """User networks, as the fields of ``wish.Wish``."""


def parse_add_host(text: str) -> str:
    """Check the argument of --add-host, ``NAME:IP`` (or NAME=IP, or host-gateway for the IP)."""
    name, separator, ip = text.partition("=") if "=" in text else text.partition(":")
    if not name or not separator or any(char.isspace() for char in name):
        raise RlError(f"invalid host {text!r}: expected NAME:IP")
    ip = ip.removeprefix("[").removesuffix("]")
    return f"{name}:{ip if ip == HOST_GATEWAY else check_ip(ip, '--add-host')}"


def check_ip(text: str, option: str, version: int | None = None) -> str:
    """Return an IP address, of this version of IP, in its usual form; RlError if it is none."""
    from ipaddress import ip_address

    try:
        found = ip_address(text)
        if version not in (None, found.version):
            raise ValueError
        return str(found)
    except ValueError:
        kind = {4: "IPv4", 6: "IPv6"}.get(version or 0, "IP")
        raise RlError(f"invalid {option} {text!r}: it is no {kind} address") from None


def check_mac(text: str) -> str:
    """Return a MAC address that an interface can have; RlError if it is none."""
    if not re.fullmatch("(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}", text.lower()):
        raise RlError(f"invalid --mac-address {text!r}: expected six bytes as 92:d0:c6:0a:29:33")
    if int(text[:2], 16) & 1:
        raise RlError(f"invalid --mac-address {text!r}: it is a multicast address")
    return text.lower().replace("-", ":")


def check_word(text: str, option: str) -> str:
    """Return a word for resolv.conf; RlError if it is none."""
    if not text or any(char.isspace() for char in text):
        raise RlError(f"invalid {option} {text!r}: it must be one word")
    return text
