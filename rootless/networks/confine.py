"""What may not leave a container's network namespace: packets to loopback addresses.

The program that connects the namespace sends on from the host whatever leaves it,
so that a packet to 127.0.0.1 would reach the host's own loopback. The kernel lets
one out by a packet socket, which takes CAP_NET_RAW (spec leaves it out), and from
a socket that is bound to an interface (SO_BINDTODEVICE, open to everybody). Called
by the container's init.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import Final

_NLMSGHDR: Final = struct.Struct("=IHHII")
# NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE
_NEW_WITH_ACK: Final = 0x001 | 0x004 | 0x200 | 0x400
_LARGEST: Final = 1 << 13

# <linux/xfrm.h>: struct xfrm_userpolicy_info, which is selector, limits, state, priority, index,
# direction, action, flags, share.
_NETLINK_XFRM: Final = 6
_XFRM_MSG_NEWPOLICY: Final = 0x13
_XFRM_POLICY_OUT: Final = 1
_XFRM_POLICY_BLOCK: Final = 1
_UNLIMITED: Final = (1 << 64) - 1
_POLICY: Final = struct.Struct("=16s16sHHHHHBBB3xiI 8Q 4Q IIBBBB4x")

# <linux/fib_rules.h>: struct fib_rule_hdr and an attribute with an address of IPv6.
_NETLINK_ROUTE: Final = 0
_RTM_NEWRULE: Final = 32
_FRA_DST: Final = 1
_FR_ACT_PROHIBIT: Final = 8
_RULE: Final = struct.Struct("=BBBBBBBBI HH16s")

# What a kernel answers that was built without one of these.
_NOT_THERE: Final = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


def keep_loopback_inside() -> None:
    """Let nothing that is sent to a loopback address leave this process's namespace.

    IPv4 takes an address without a route to be on the link, so no route helps, but a policy of
    IPsec, from which the loopback interface is exempt. For IPv6 it would not be: there a rule
    helps, which is asked after the table of local addresses.
    """
    _ask(_NETLINK_XFRM, _XFRM_MSG_NEWPOLICY, _blocking_policy("127.0.0.0", 8))
    _ask(_NETLINK_ROUTE, _RTM_NEWRULE, _prohibiting_rule("::1", 128))


def forward_nothing() -> None:
    """Let this process's namespace send nothing on from one of its networks to another.

    A new namespace begins with what the host does; where that cannot be changed it stays so.
    """
    for file in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        with contextlib.suppress(OSError), open(f"/proc/sys/net/{file}", "w") as setting:
            setting.write("0")


def _ask(protocol: int, kind: int, body: bytes) -> None:
    number = 0
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        ) as asking:
            size = _NLMSGHDR.size + len(body)
            asking.send(_NLMSGHDR.pack(size, kind, _NEW_WITH_ACK, 0, 0) + body)
            # struct nlmsgerr: 0, or an error as a negative number.
            (number,) = struct.unpack_from("=i", asking.recv(_LARGEST), _NLMSGHDR.size)
    except OSError as error:
        number = -(error.errno or 0)
    if number and -number not in _NOT_THERE:
        raise OSError(-number, os.strerror(-number), "keeping loopback addresses inside")


def _blocking_policy(network: str, length: int) -> bytes:
    address = socket.inet_pton(socket.AF_INET, network)
    selector = (address, b"", 0, 0, 0, 0, socket.AF_INET, length, 0, 0, 0, 0)
    limits, state = (*[_UNLIMITED] * 4, 0, 0, 0, 0), (0, 0, 0, 0)
    return _POLICY.pack(
        *selector, *limits, *state, 0, 0, _XFRM_POLICY_OUT, _XFRM_POLICY_BLOCK, 0, 0
    )


def _prohibiting_rule(network: str, length: int) -> bytes:
    address = socket.inet_pton(socket.AF_INET6, network)
    header = (socket.AF_INET6, length, 0, 0, 0, 0, 0, _FR_ACT_PROHIBIT, 0)
    return _RULE.pack(*header, 4 + len(address), _FRA_DST, address)
