"""Default routes of a network namespace, as the kernel announces them: rtnetlink(7).

A socket belongs to the namespace that it was made in: the container's init makes
it, the supervisor reads it, and so learns when the network is there.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

# <linux/rtnetlink.h>
_RTMGRP_IPV4_ROUTE: Final = 0x40
_RTMGRP_IPV6_ROUTE: Final = 0x400
_RTM_NEWROUTE: Final = 24
_NLMSGHDR: Final = struct.Struct("=IHHII")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_RT_TABLE_MAIN: Final = 254
_RTN_UNICAST: Final = 1
_VERSIONS: Final = {int(socket.AF_INET): 4, int(socket.AF_INET6): 6}
_LARGEST: Final = 1 << 16


def watch() -> int:
    """Return a descriptor that hears of every new route of this process's namespace."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
    ) as listening:
        listening.bind((0, _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE))
        return listening.detach()


def heard(fd: int) -> set[int]:
    """Return the versions of IP (4, 6) of which a default route was announced by now."""
    found: set[int] = set()
    while True:
        try:
            data = os.read(fd, _LARGEST)
        except BlockingIOError:
            return found
        found |= _defaults(data)


def _defaults(data: bytes) -> set[int]:
    found = set()
    offset = 0
    while offset + _NLMSGHDR.size + _RTMSG.size <= len(data):
        length, kind, *_ = _NLMSGHDR.unpack_from(data, offset)
        family, to_length, _, _, table, _, _, route_type, _ = _RTMSG.unpack_from(
            data, offset + _NLMSGHDR.size
        )
        default = (to_length, table, route_type) == (0, _RT_TABLE_MAIN, _RTN_UNICAST)
        if kind == _RTM_NEWROUTE and default and family in _VERSIONS:
            found.add(_VERSIONS[family])
        offset += (max(length, _NLMSGHDR.size) + 3) & ~3
    return found
