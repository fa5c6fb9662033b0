"""Containers on user networks by their names, addresses and options, as `rl` shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.networks.support import PYTHON
from tests.support.runner import Rl

IDLE = ("alpine", "sleep", "1000")
LOOK_UP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(*sorted({found[4][0] for found in socket.getaddrinfo(name, None)}))
    except OSError:
        print("unknown")
"""


@pytest.fixture
def nets(rl: Rl) -> Iterator[Rl]:
    """Return the command with the networks front and back, and removes them with all on them."""
    rl("network", "create", "--subnet", "10.191.1.0/24", "front")
    rl("network", "create", "--subnet", "10.191.2.0/24", "--internal", "back")
    yield rl
    rl("network", "rm", "-f", "front", "back")


def start(rl: Rl, name: str, *options: str) -> str:
    """Start a container that does nothing, and return its ID."""
    return rl("run", "-d", "--init", "--name", name, *PYTHON, *options, *IDLE).stdout.strip()


def look_up(rl: Rl, asking: str, *names: str) -> list[str]:
    """Return the addresses of names as a container finds them."""
    return rl("exec", asking, "/usr/bin/python3", "-c", LOOK_UP, *names).stdout.splitlines()


def networks(rl: Rl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rl("inspect", name).stdout)[0]["NetworkSettings"]
    return dict(found["Networks"])


def test_containers_find_each_other_by_all_their_names(nets: Rl) -> None:
    identity = start(nets, "web", "--network", "front:alias=www", "--network-alias", "shop")
    start(nets, "db", "--network", "front", "--hostname", "store", "--network-alias", "shop")
    names = (
        "web", "www", "WEB", identity[:12], "web.front", "shop", "db", "store", "nobody.invalid",
    )  # fmt: skip
    assert look_up(nets, "db", *names) == [
        *["10.191.1.2"] * 5, "10.191.1.2 10.191.1.3", *["10.191.1.3"] * 2, "unknown",
    ]  # fmt: skip
    assert nets("exec", "db", "nslookup", "10.191.1.2").stdout.count("web") == 1
    assert "10.191.1.3\tstore" in nets("exec", "db", "cat", "/etc/hosts").stdout
    resolver = nets("exec", "db", "cat", "/etc/resolv.conf").stdout
    assert ("nameserver 10.191.1.1\n" in resolver, "ndots:0" in resolver) == (True, True)
    nets("rm", "-f", "web")
    assert look_up(nets, "db", "www", "shop") == ["unknown", "10.191.1.3"]
    # The network's own address is at one place, whoever leaves.
    assert "02:42:0a:bf:01:01" in nets("exec", "db", "cat", "/proc/net/arp").stdout


def test_names_of_a_network_are_known_on_it_alone(nets: Rl) -> None:
    start(nets, "web", "--network", "front")
    start(nets, "db", "--network", "back")
    assert look_up(nets, "web", "db") == look_up(nets, "db", "web") == ["unknown"]
    start(nets, "both", "--network", "front", "--network", "back")
    assert look_up(nets, "both", "web", "db") == ["10.191.1.2", "10.191.2.2"]
    assert look_up(nets, "both", "both.front", "both.back") == ["10.191.1.3", "10.191.2.3"]
    assert look_up(nets, "db", "both", "both.back", "both.front", "github.com") == [
        *["10.191.2.3"] * 2, *["unknown"] * 2,
    ]  # fmt: skip
    nets("network", "disconnect", "front", "both")
    assert look_up(nets, "both", "web", "db") == ["unknown", "10.191.2.2"]
    nets("network", "connect", "--alias", "again", "front", "both")
    assert look_up(nets, "both", "web", "db") == ["10.191.1.2", "10.191.2.2"]
    assert look_up(nets, "web", "again") == ["10.191.1.3"]


def test_network_without_dns_has_none(rl: Rl) -> None:
    rl("network", "create", "--disable-dns", "dumb")
    try:
        start(rl, "web", "--network", "dumb")
        start(rl, "db", "--network", "dumb")
        assert look_up(rl, "db", "web") == ["unknown"]
    finally:
        rl("network", "rm", "-f", "dumb")


def test_what_was_asked_for_is_what_it_has_and_is_shown(nets: Rl) -> None:
    nets("network", "create", "--ipv6", "--subnet", "fd00:77::/64", "-o", "mtu=1400", "six")
    try:
        wish = "six:ip6=fd00:77::9,mac=92:d0:c6:0a:29:33,interface_name=lan"
        start(nets, "box", "--network", wish, "--network", "back:ip=10.191.2.40")
        seen = nets("exec", "box", "ip", "-o", "addr").stdout
        assert "lan    inet6 fd00:77::9/64" in seen
        link = nets("exec", "box", "ip", "-o", "link", "show", "lan").stdout
        assert ("92:d0:c6:0a:29:33" in link, " mtu 1400 " in link) == (True, True)
        found = networks(nets, "box")
        assert list(found) == ["six", "back"]
        assert found["six"]["GlobalIPv6Address"] == "fd00:77::9"
        assert found["six"]["MacAddress"] == "92:d0:c6:0a:29:33"
        assert found["six"]["IPAddress"].startswith("10.")
        assert (found["back"]["IPAddress"], found["back"]["IPPrefixLen"]) == ("10.191.2.40", 24)
        assert found["back"]["Gateway"] == "10.191.2.1"
        assert len(found["back"]["EndpointID"]) == 64
        (back,) = json.loads(nets("network", "inspect", "back").stdout)
        assert found["back"]["NetworkID"] == back["Id"]
        (end,) = back["Containers"].values()
        assert (end["Name"], end["IPv4Address"]) == ("box", "10.191.2.40/24")
        shown = nets("ps", "--filter", f"network={back['Id'][:9]}", "--format", "{{.Networks}}")
        assert shown.stdout == "six,back\n"
        assert nets("ps", "-q", "--filter", "network=front").stdout == ""
        nets("stop", "-t", "0", "box")
        assert networks(nets, "box")["back"]["IPAddress"] == ""
    finally:
        nets("network", "rm", "-f", "six")


def test_address_asked_for_is_given_once_and_is_free_again_afterwards(nets: Rl) -> None:
    mine = ("--network", "front", "--ip", "10.191.1.77")
    start(nets, "first", *mine)
    refused = nets("run", "--name", "second", *mine, "alpine", "true", check=False)
    said = "requested address 10.191.1.77 is already in use on the network front"
    assert (refused.returncode, refused.stderr) == (125, f"rl: {said}\n")
    nets("stop", "-t", "0", "first")
    nets("start", "second")
    assert nets("wait", "second").stdout == "0\n"
    nets("start", "first")
    assert networks(nets, "first")["front"]["IPAddress"] == "10.191.1.77"
    nets("rm", "second")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--network", "nosuch"), "no such network: nosuch (rl network create nosuch makes one;"),
        (("--network", "front:ip=10.3.0.9"), "10.3.0.9 is not in the subnet 10.191.1.0/24"),
        (("--network", "front", "--ip", "10.191.1.1"), "10.191.1.1 cannot be a container's"),
        (("--network", "front", "--ip", "fd00::7"), "it is no IPv4 address"),
        (("--network", "front", "--ip6", "10.191.1.9"), "it is no IPv6 address"),
        (("--network", "front", "--network", "front"), "network front is given twice"),
        (("--network", "front", "--network", "host"), "conflicting networks front, host"),
        (("--network", "pasta", "--network", "none"), "conflicting networks pasta, none"),
        (("--network", "front", "--network", "back", "--ip", "10.191.1.9"), "single network"),
        (("--network", "host", "--network-alias", "a"), "--network-alias needs a network"),
        (("--ip6", "fd00::7"), "--ip6 needs a network"),
        (("--network", "front", "--network-alias", "a b"), "invalid network alias 'a b'"),
        (("--network", "front:web"), "invalid network option 'web'"),
        (
            ("--network", "contaner:web"),
            "no such network: contaner (did you mean --network container:web?)",
        ),
        (("--network", "absent:web"), "no such network: absent (rl network create absent"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    nets: Rl, options: tuple[str, ...], said: str
) -> None:
    done = nets("create", "--name", "never", *options, "alpine", "true", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert said in done.stderr
    assert nets("container", "exists", "never", check=False).returncode == 1


@pytest.mark.parametrize("mode", ["bridge", "host", "none", "pasta"])
def test_network_mode_is_nothing_to_be_connected_to(nets: Rl, mode: str) -> None:
    nets("create", "--name", "box", "alpine", "true")
    try:
        for action in ("connect", "disconnect"):
            refused = nets("network", action, mode, "box", check=False)
            assert refused.returncode != 0
            assert f"{mode} is a network mode, which is chosen when" in refused.stderr
    finally:
        nets("rm", "box")


@pytest.mark.parametrize("command", [("create",), ("run", "--rm")])
def test_ports_on_internal_networks_alone_are_warned_of(nets: Rl, command: tuple[str, ...]) -> None:
    asked = ("--name", "box", "-p", "80", "--network", "back")
    warned = "ports are not published: all networks are internal"
    try:
        assert warned in nets(*command, *asked, "alpine", "true").stderr
        nets("rm", "-f", "box", check=False)
        assert warned not in nets(*command, *asked, "--network", "front", "alpine", "true").stderr
    finally:
        nets("rm", "-f", "box", check=False)


def test_network_that_a_container_has_is_not_removed_but_by_force(nets: Rl) -> None:
    nets("create", "--name", "idle", "--network", "front", "alpine", "true")
    start(nets, "busy", "--network", "front")
    refused = nets("network", "rm", "front", check=False)
    assert refused.returncode == 125
    assert "network front is in use by container busy, idle (remove that first" in refused.stderr
    nets("network", "prune", "-f")
    assert "front" in nets("network", "ls", "--filter", "dangling=false").stdout
    assert nets("network", "rm", "-f", "front").stdout == "front\n"
    assert nets("ps", "-aq", "--filter", "name=idle", "--filter", "name=busy").stdout == ""
    nets("network", "create", "front")


def test_containers_started_at_once_have_addresses_of_their_own(nets: Rl) -> None:
    names = [f"c{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: start(nets, name, "--network", "back"), names))
    found = {networks(nets, name)["back"]["IPAddress"] for name in names}
    assert found == {f"10.191.2.{number}" for number in range(2, 10)}


def test_events_tell_who_came_and_went(nets: Rl) -> None:
    (network,) = json.loads(nets("network", "inspect", "front").stdout)
    identity = start(nets, "box", "--network", "front")
    nets("rm", "-f", "box")
    told = nets(
        "events", "--since", "1h", "--until", "0s", "--filter", f"network={network['Id']}",
        "--format", "{{.Action}} {{.Actor.Attributes.container}}",
    )  # fmt: skip
    first, *rest = told.stdout.splitlines()
    assert first.startswith("create ")
    assert rest == [f"connect {identity}", f"disconnect {identity}"]


def test_container_that_does_not_run_is_connected_and_disconnected(nets: Rl) -> None:
    nets("create", "--name", "box", "alpine", "ip", "-o", "-4", "addr")
    nets("network", "connect", "--ip", "10.191.1.33", "front", "box")
    again = nets("network", "connect", "front", "box", check=False)
    assert again.stderr == "rl: container box is already connected to network front\n"
    assert "10.191.1.33/24" in nets("start", "-a", "box").stdout
    nets("network", "disconnect", "front", "box")
    assert "10.191.1.33" not in nets("start", "-a", "box").stdout
    gone = nets("network", "disconnect", "front", "box", check=False)
    assert gone.stderr == "rl: container box is not connected to network front\n"
    nets("rm", "box")
    nets("create", "--name", "alone", "--network", "none", "alpine", "true")
    refused = nets("network", "connect", "front", "alone", check=False)
    assert "has the network mode none" in refused.stderr
    nets("rm", "alone")


def test_dns_servers_of_a_container_are_asked_by_the_networks_own(nets: Rl) -> None:
    start(nets, "box", "--network", "front", "--dns", "192.0.2.53", "--dns-search", "example.org")
    assert nets("exec", "box", "cat", "/etc/resolv.conf").stdout.startswith(
        "search example.org\nnameserver 10.191.1.1\n"
    )
    assert look_up(nets, "box", "box") == ["10.191.1.2"]
