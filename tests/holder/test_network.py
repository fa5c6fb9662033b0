"""User networks as the holder runs them: between namespaces as those of containers are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.holder.client import Holder
from rootless.kernel import nested, polling, process, syscalls
from rootless.networks import loopback
from rootless.networks.user import Attachment, Network
from tests.support.waiting import PATIENCE, wait_until

BLUE = Network(
    "b" * 64, "blue", ("10.89.0.0/24", "fd52:6c01::/64"), ("10.89.0.1", "fd52:6c01::1"), dns=False
)
RED = Network("c" * 64, "red", ("10.89.1.0/24",), ("10.89.1.1",), dns=False)
SIOCGIFHWADDR = 0x8927


class Space:
    """A client of the holder with the network namespace that a container would have."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.holder = Holder(root)
        self.channel, theirs = Channel.pair()
        flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET
        outer = self.holder.outer
        self.child = nested.fork(
            lambda: _live(theirs), flags, outer.maps, outer, keep=[theirs.fileno()]
        )
        theirs.close()
        self.channel.send({"do": "up"})
        self.channel.receive()

    def join(self, network: Network, number: int, interface: str = "eth0") -> None:
        addresses = tuple(
            f"{subnet.partition('/')[0].removesuffix('0')}{number}/{subnet.partition('/')[2]}"
            for subnet in network.subnets
        )
        place = Attachment(network.id, addresses, f"02:42:00:00:00:{number:02x}", interface)
        namespace = os.open(f"/proc/{self.child.pid}/ns/net", os.O_RDONLY)
        try:
            self.holder.ask(
                "network",
                {"join": network._asdict(), "attachment": place._asdict(), "container": "x"},
                namespace,
            )
        finally:
            os.close(namespace)

    def leave(self, network: Network) -> None:
        self.holder.ask("network", {"leave": network.id})

    def do(self, what: str, *arguments: object) -> object:
        self.channel.send({"do": what, "with": arguments})
        message, _ = self.channel.receive()
        assert message is not None
        return message["answer"]

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        self.channel.close()
        self.holder.close()


def _live(channel: Channel) -> int:
    process.die_with_parent()
    servers: list[socket.socket] = []
    while (message := channel.receive()[0]) is not None:
        answer: object = None
        match message["do"], message.get("with", ()):
            case "up", _:
                loopback.bring_up()
            case "interfaces", _:
                answer = sorted(name for _, name in socket.if_nameindex())
            case "mac", [interface]:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                    request = struct.pack("256s", interface.encode())
                    found = fcntl.ioctl(asking, SIOCGIFHWADDR, request)
                answer = found[18:24].hex(":")
            case "neighbours", _:
                lines = Path("/proc/self/net/arp").read_text().splitlines()[1:]
                answer = {line.split()[0]: line.split()[3] for line in lines}
            case "serve", [address]:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                servers.append(socket.create_server((address, 7), family=family))
            case "reach", [address]:
                try:
                    socket.create_connection((address, 7), timeout=PATIENCE).close()
                    answer = "reached"
                except OSError as error:
                    answer = os.strerror(error.errno or 0)
        channel.send({"answer": answer})
    return 0


@pytest.fixture
def spaces(tmp_path: Path) -> Iterator[list[Space]]:
    """Return three of them, all of one store."""
    made = [Space(tmp_path) for _ in range(3)]
    yield made
    for space in made:
        if space.child.running:
            space.end()


def test_two_on_a_network_reach_each_other_by_either_ip(spaces: list[Space]) -> None:
    first, second, _ = spaces
    first.join(BLUE, 2)
    second.join(BLUE, 3)
    for address in ("10.89.0.2", "fd52:6c01::2"):
        first.do("serve", address)
        assert second.do("reach", address) == "reached"


def test_who_is_on_another_network_is_not_reached(spaces: list[Space]) -> None:
    first, second, third = spaces
    first.join(BLUE, 2)
    second.join(RED, 2)
    first.do("serve", "0.0.0.0")
    assert second.do("reach", "10.89.0.2") == "Network is unreachable"
    third.join(BLUE, 3)
    third.join(RED, 3, "eth1")
    assert third.do("reach", "10.89.0.2") == "reached"
    assert second.do("reach", "10.89.0.2") == "Network is unreachable"


def test_interface_and_addresses_are_those_that_were_chosen(spaces: list[Space]) -> None:
    first = spaces[0]
    first.join(BLUE, 9, "lan")
    assert first.do("interfaces") == ["lan", "lo"]
    assert first.do("mac", "lan") == "02:42:00:00:00:09"


def holders(space: Space) -> list[int]:
    """Return the process that holds what a space's store shares, by its log."""
    log = str(space.root / "holder.log")
    found: dict[int, int] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name == "rl-holder" and os.readlink(f"/proc/{pid}/fd/2") == log:
                parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
                found[int(pid)] = int(parent)
    # What it has done by a child has its name.
    return [pid for pid, parent in found.items() if parent not in found]


def networks_of(space: Space) -> set[str]:
    """Return the network namespaces that the holder of a space's store has open."""
    (pid,) = holders(space)
    links = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        # One may be closed while we look.
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(fd))
    return {link for link in links if link.startswith("net:")}


def test_network_is_there_from_the_first_to_the_last_container(spaces: list[Space]) -> None:
    first, second, third = spaces
    first.join(BLUE, 2)
    # What it was handed over it closes a moment after it has answered.
    wait_until(lambda: len(networks_of(third)) == 1)
    (namespace,) = networks_of(third)
    second.join(BLUE, 3)
    wait_until(lambda: networks_of(third) == {namespace})
    first.leave(BLUE)
    assert first.do("interfaces") == ["lo"]
    assert networks_of(third) == {namespace}
    second.leave(BLUE)
    wait_until(lambda: networks_of(third) == set())
    # And again, with the addresses that were in use.
    first.join(BLUE, 2)
    second.join(BLUE, 3)
    first.do("serve", "10.89.0.2")
    assert second.do("reach", "10.89.0.2") == "reached"


def test_gateway_has_one_mac_address_whoever_comes_and_goes(spaces: list[Space]) -> None:
    first, second, _ = spaces
    first.join(BLUE, 2)
    # Its DNS server, which nobody is here: but that the answer comes shows who the gateway is.
    assert first.do("reach", "10.89.0.1") == "Connection refused"
    assert first.do("neighbours") == {"10.89.0.1": "02:42:0a:59:00:01"}
    second.join(BLUE, 3)
    second.do("reach", "10.89.0.1")
    assert second.do("neighbours") == first.do("neighbours")


def test_holder_keeps_nothing_of_a_container(spaces: list[Space]) -> None:
    first = spaces[0]
    first.join(BLUE, 2)
    own = os.readlink(f"/proc/{first.child.pid}/ns/net")
    wait_until(lambda: own not in networks_of(first))
    assert networks_of(first)


def test_what_a_dead_client_had_is_free_at_once(spaces: list[Space]) -> None:
    first, second, third = spaces
    first.join(BLUE, 2)
    second.join(BLUE, 3)
    # Its namespace lives on, as that of a container does whose supervisor was killed.
    first.holder.close()
    third.join(BLUE, 2)
    third.do("serve", "10.89.0.2")
    assert second.do("reach", "10.89.0.2") == "reached"
    assert first.do("interfaces") == ["lo"]


def test_interface_that_is_there_already_is_refused_and_nothing_remains(
    spaces: list[Space],
) -> None:
    first, second, _ = spaces
    with pytest.raises(RlError, match="cannot connect the container to network blue: File exists"):
        first.join(BLUE, 2, "lo")
    wait_until(lambda: networks_of(first) == set())
    first.join(BLUE, 2)
    second.join(BLUE, 3)
    with pytest.raises(RlError, match="cannot connect the container to network red: File exists"):
        first.join(RED, 2)
    with pytest.raises(RlError, match="already connected to network blue"):
        first.join(BLUE, 4, "eth1")
    first.do("serve", "10.89.0.2")
    assert second.do("reach", "10.89.0.2") == "reached"


def test_two_stores_with_the_same_network_have_two(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    for root in roots:
        root.mkdir()
    first, second = (Space(root) for root in roots)
    first.join(BLUE, 2)
    second.join(BLUE, 3)
    first.do("serve", "10.89.0.2")
    assert second.do("reach", "10.89.0.2") == "No route to host"
    first.end()
    assert second.do("interfaces") == ["eth0", "lo"]
    second.end()


def test_network_ends_with_a_holder_that_is_killed(spaces: list[Space]) -> None:
    first, second, _ = spaces
    first.join(BLUE, 2)
    second.join(BLUE, 3)
    (pid,) = holders(first)
    os.kill(pid, signal.SIGKILL)
    for space in (first, second):
        assert polling.wait(space.holder.watched(), PATIENCE)
    wait_until(lambda: first.do("interfaces") == ["lo"])
