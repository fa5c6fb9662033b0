"""Which port of the host each published port gets, asked of the kernel.

Called by the supervisor before each start, so that a port in use is known
before anything runs.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Final

from rootless.errors import RlError
from rootless.networks.ports import ANY, Port

_TYPES: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_UNPRIVILEGED: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
# Tries to find a free port: by IPv6 it may be taken where by IPv4 it is not.
_TRIES: Final = 32


def reserve(ports: Iterable[Port]) -> list[Port]:
    """Return the ports with a free one of the host for each 0; RlError where one is not to be had.

    Nobody holds them afterwards: whoever takes one before the container does is noticed
    when the forwarding begins.
    """
    held: list[socket.socket] = []
    try:
        return [_reserve(port, held) for port in ports]
    finally:
        for holder in held:
            holder.close()


def _reserve(port: Port, held: list[socket.socket]) -> Port:
    last = port.last or port.host
    for candidate in range(port.host, last + 1) if port.host else [0] * _TRIES:
        chosen = candidate
        try:
            for family, address in _addresses(port.ip):
                holder = socket.socket(family, _TYPES[port.protocol])
                held.append(holder)
                if family == socket.AF_INET6:
                    holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # A connection that lingers from the last time is no server; for UDP it would
                # mean to share the port.
                if port.protocol == "tcp":
                    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                holder.bind((address, chosen))
                if port.protocol == "tcp":
                    holder.listen(1)
                chosen = holder.getsockname()[1]
            return port._replace(host=chosen, last=0)
        except OSError as error:
            if candidate == last != 0 or error.errno != errno.EADDRINUSE:
                raise _unavailable(port._replace(host=chosen), error) from None
    raise RlError(f"no free port of the host was found for {port}")


def _addresses(ip: str) -> list[tuple[socket.AddressFamily, str]]:
    if not ip:
        both = [(socket.AF_INET, ANY)]
        if socket.has_ipv6 and _kernel_has_ipv6():
            both.append((socket.AF_INET6, "::"))
        return both
    return [(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)]


def _kernel_has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def _unavailable(port: Port, error: OSError) -> RlError:
    what = f"cannot publish port {port} on {port.where}"
    if error.errno == errno.EADDRINUSE:
        return RlError(f"{what}: port is already allocated ({error.strerror})")
    if error.errno == errno.EACCES:
        first = _first_unprivileged()
        return RlError(
            f"{what}: ports below {first} need the sysctl net.ipv4.ip_unprivileged_port_start at "
            f"{port.host} or less (ask the administrator, or publish it on a higher port)"
        )
    return RlError(f"{what}: {error.strerror}")


def _first_unprivileged() -> str:
    try:
        with open(_UNPRIVILEGED, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "1024"
