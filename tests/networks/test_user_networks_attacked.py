"""Attacks of a container on what runs the user networks of its store."""

from __future__ import annotations

import json

from tests.networks.support import PYTHON
from tests.networks.test_user_networks import nets
from tests.networks.user_networks import serving
from tests.support.runner import Rl
from tests.support.undefended import BESIDE_THE_HOLDER, changed
from tests.support.waiting import wait_until

__all__ = ["nets"]

# Whom the kernel lets follow the links of a process it lets trace it as well. The name server may
# begin only just before the container.
LOOK = """
until grep -qx rl-dns /proc/[0-9]*/comm 2>/dev/null; do sleep 0.05; done
for p in /proc/[0-9]*; do
    case $(cat $p/comm 2>/dev/null) in
        rl-holder|rl-dns) [ -n "$(readlink $p/exe)" ] && echo "reached $(cat $p/comm)";;
    esac
done
true
"""


def test_holder_and_name_server_cannot_be_taken_over_by_a_container_that_sees_them(
    nets: Rl,
) -> None:
    def attack(rl: Rl) -> set[str]:
        seeing = ("--pid", "host", "--privileged", "--network", "blue")
        return set(rl("run", "--rm", *seeing, "alpine", "sh", "-c", LOOK).stdout.splitlines())

    assert attack(nets) == set()
    assert attack(changed(nets, BESIDE_THE_HOLDER)) == {"reached rl-holder", "reached rl-dns"}


# A router advertisement of a router that is preferred to all, and then a datagram, from the
# address of the link, which must be there first.
ADVERTISE = """
import socket, struct, time
prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
said = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0x08, 1800, 0, 0)
said += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + prefix
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
after = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
    for number, name in socket.if_nameindex():
        if name != "lo":
            for sender, data, port in ((raw, said, 0), (after, b"!", 99)):
                try:
                    sender.sendto(data, ("ff02::1", port, 0, number))
                except OSError:
                    pass
    time.sleep(0.1)
"""
BELIEVE = """
import socket
heard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
heard.bind(("", 99))
count = 0
while count < 5:
    count += heard.recvfrom(10)[1][0].startswith("fe80:")
found = open("/proc/net/ipv6_route").read() + open("/proc/net/if_inet6").read()
print("led astray" if "20010db80bad" in found else "unmoved")
"""


def test_neighbour_that_says_it_is_a_router_is_not_believed(nets: Rl) -> None:
    def attack(rl: Rl) -> str:
        blue = ("--network", "blue", *PYTHON, "alpine", "/usr/bin/python3", "-c")
        rl("run", "-d", "--init", "--name", "liar", "--cap-add", "NET_RAW", *blue, ADVERTISE)
        try:
            return rl("run", "--rm", *blue, BELIEVE).stdout.strip()
        finally:
            rl("rm", "-f", "liar")

    defence = "from rootless.holder import links\nlinks._believe_no_router = lambda _: None"
    assert attack(nets) == "unmoved"
    wait_until(lambda: not serving(nets, "rl-holder"))
    assert attack(changed(nets, defence)) == "led astray"


def test_network_of_ipv4_leaves_no_way_by_ipv6(nets: Rl) -> None:
    def own(rl: Rl) -> str:
        here = ("cut", "-c", "1-4", "/proc/net/if_inet6")
        return rl("run", "--rm", "--network", "closed", "alpine", *here).stdout

    defence = "from rootless.holder import links\nlinks._no_ipv6 = lambda _: None"
    assert own(nets) == "0000\n"
    wait_until(lambda: not serving(nets, "rl-holder"))
    assert "fe80" in own(changed(nets, defence))


# Frames of a thousand senders, once the bridge forwards what we send.
PRETEND = """
import os, socket, time
gateway = next(line.split()[1] for line in open("/etc/resolv.conf") if "nameserver" in line)
while True:
    try:
        socket.create_connection((gateway, 53), 1).close()
        break
    except OSError:
        time.sleep(0.1)
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
for _ in range(1000):
    raw.send(b"\\x02\\x42\\0\\0\\0\\1\\x02" + os.urandom(5) + b"\\x88\\xb5" + bytes(46))
print("sent", flush=True)
time.sleep(1000)
"""
# Whoever is connected notes whom the bridge knows by then, and which of them for good.
NOTE = """
import json
from pathlib import Path
from rootless.holder import links
from rootless.kernel import syscalls
plug = links.plug
def noting(namespace, *rest):
    syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    with links._netlink("cannot note") as netlink:
        found = [(one.get("lladdr"), one["state"]) for one in netlink.fdb("dump")]
        Path({!r}).write_text(json.dumps(found))
    plug(namespace, *rest)
links.plug = noting
"""
# <linux/neighbour.h>: what the state of an entry is that nobody learned.
NOARP = 0x40


def test_bridge_remembers_no_senders_that_a_container_makes_up(nets: Rl) -> None:
    noted = nets.root / "noted"

    def attack(rl: Rl) -> tuple[int, bool]:
        closed = ("--network", "closed", *PYTHON, "alpine", "/usr/bin/python3", "-c")
        rl("run", "-d", "--init", "--name", "many", "--cap-add", "NET_RAW", *closed, PRETEND)
        try:
            wait_until(lambda: rl("logs", "many").stdout == "sent\n")
            rl("run", "--rm", "--network", "closed", "alpine", "true")
            known = json.loads(noted.read_text())
            own = json.loads(rl("inspect", "many").stdout)[0]["NetworkSettings"]["Networks"]
            return len(known), [own["closed"]["MacAddress"], NOARP] in known
        finally:
            rl("rm", "-f", "many")

    noting = changed(nets, NOTE.format(str(noted)))
    defence = "links._learn_nothing = lambda *_: None"
    count, own_is_there = attack(noting)
    assert (count < 100, own_is_there) == (True, True)
    wait_until(lambda: not serving(nets, "rl-holder"))
    count, own_is_there = attack(changed(noting, defence))
    assert (count > 500, own_is_there) == (True, False)
    noted.unlink()
