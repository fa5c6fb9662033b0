"""Bridges and the pairs of interfaces that lead there, made with rtnetlink.

Every function runs in a child of the holder's (``errand``), which enters the network namespaces
that it is given; none knows whose they are. Called by the holder's ``network``.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.kernel import syscalls
from rootless.networks import loopback
from rootless.networks.user import Attachment, Network, mac_of

_BRIDGE: Final = "bridge"
_DNS_PORT: Final = 53
_BACKLOG: Final = 64
# A neighbour may send what it likes: it is no router of ours, and tells nobody a way.
_DEAF: Final = ("accept_ra", "autoconf", "accept_redirects")
# <linux/if_addr.h>: nobody else has the address, we chose it.
_IFA_F_NODAD: Final = 0x02
# <linux/neighbour.h>: an entry that stays as it is, of the bridge's table and not the port's own.
_NUD_NOARP: Final = 0x40
_NTF_MASTER: Final = 0x04


def load() -> None:
    """Load what takes long, for all children that are still to come."""
    import pyroute2  # noqa: F401


def make(channel: Channel, network: Network) -> None:
    """Make the bridge of a network in this process's namespace, which is new.

    Sends the namespace and, if it has a DNS server, two sockets for each address of the bridge:
    for UDP, and one that listens for TCP.
    """
    loopback.bring_up()
    _believe_no_router("default")
    with _netlink(f"cannot make network {network.name}") as netlink:
        # With a MAC address of its own: else it is that of one of the containers, and another when
        # that leaves, which the others would not learn for a while.
        # Without a querier that asks for members, snooping would lose neighbour discovery.
        address = mac_of(network.gateways[0])
        wanted = {"address": address, "br_mcast_snooping": 0, **_mtu(network)}
        netlink.link("add", ifname=_BRIDGE, kind="bridge", **wanted)
        (index,) = netlink.link_lookup(ifname=_BRIDGE)
        for subnet, gateway in zip(network.subnets, network.gateways, strict=True):
            _add_address(netlink, index, f"{gateway}/{subnet.partition('/')[2]}")
        netlink.link("set", index=index, state="up")
    channel.send({}, os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    for gateway in network.gateways if network.dns else ():
        udp, tcp = (_bound(gateway, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        tcp.listen(_BACKLOG)
        channel.send({}, udp.fileno(), tcp.fileno())


def _bound(address: str, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, _DNS_PORT))
    return made


def plug(namespace: int, port: str, container: int, network: Network, place: Attachment) -> None:
    """Give the network namespace ``container`` an interface on a network, whose end is ``port``."""
    syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    failed = f"cannot connect the container to network {network.name}"
    with _netlink(failed) as netlink:
        (bridge,) = netlink.link_lookup(ifname=_BRIDGE)
        peer = {"ifname": place.interface, "net_ns_fd": container, "address": place.mac}
        peer |= _mtu(network)
        netlink.link("add", ifname=port, kind="veth", peer=peer, **_mtu(network))
        (index,) = netlink.link_lookup(ifname=port)
        netlink.link("set", index=index, master=bridge)
        _learn_nothing(netlink, index, place.mac)
        netlink.link("set", index=index, state="up")
    syscalls.setns(container, syscalls.CLONE_NEWNET)
    # Others may remember who had the address before.
    for file in ("ipv4/conf/{}/arp_notify", "ipv6/conf/{}/ndisc_notify"):
        _set(file.format(place.interface), "1")
    _believe_no_router(place.interface)
    if not any(":" in address for address in place.addresses):
        _no_ipv6(place.interface)
    with _netlink(failed) as netlink:
        (index,) = netlink.link_lookup(ifname=place.interface)
        for address in place.addresses:
            _add_address(netlink, index, address)
        netlink.link("set", index=index, state="up")


def _learn_nothing(netlink: Any, port: int, mac: str) -> None:
    """Tell the bridge who is at a port, instead of what the senders of frames say who they are.

    Of those there may be any number, which take the kernel's memory, and nobody's cgroup pays.
    """
    netlink.brport("set", index=port, learning=0)
    # Another may have had the address, whose end is not seen yet.
    netlink.fdb("replace", ifindex=port, lladdr=mac, state=_NUD_NOARP, flags=_NTF_MASTER)


def _believe_no_router(interface: str) -> None:
    """Take no route and no address from the neighbours; before the interface is up."""
    for name in _DEAF:
        _set(f"ipv6/conf/{interface}/{name}", "0")
    # For IPv4 either of the two is enough to have it.
    for conf in ("all", interface):
        for name in ("accept_redirects", "send_redirects"):
            _set(f"ipv4/conf/{conf}/{name}", "0")


def _no_ipv6(interface: str) -> None:
    """Have not even an address of the link, where the network has none: nobody expects one."""
    _set(f"ipv6/conf/{interface}/disable_ipv6", "1")


def unplug(namespace: int, port: str) -> None:
    """Take a port away, and with it the container's interface; it may be gone already."""
    syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    with _netlink("cannot disconnect the container") as netlink:
        for index in netlink.link_lookup(ifname=port):
            netlink.link("del", index=index)


@contextlib.contextmanager
def _netlink(what: str) -> Iterator[Any]:
    """Give a connection to this namespace's rtnetlink; RlError says ``what`` failed."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        raise RlError(f"{what}: {os.strerror(error.code)}") from None


def _add_address(netlink: Any, index: int, address: str) -> None:
    ip, _, length = address.partition("/")
    flags = {"flags": _IFA_F_NODAD} if ":" in ip else {}
    netlink.addr("add", index=index, address=ip, prefixlen=int(length), **flags)


def _mtu(network: Network) -> dict[str, int]:
    return {"mtu": network.mtu} if network.mtu else {}


def _set(sysctl: str, value: str) -> None:
    """Set what a kernel may lack, or a container may have closed."""
    with contextlib.suppress(OSError), open(f"/proc/sys/net/{sysctl}", "w") as file:
        file.write(value)
