"""Containers that are connected and disconnected while they run: what they reach, and who them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.networks.support import HOST, ask, published, server, wait_until_refused, wait_until_up
from tests.networks.user_networks import addresses, reach
from tests.support.runner import Rl

SERVE = ("alpine", "sleep", "1000")


@pytest.fixture
def nets(rl: Rl) -> Iterator[Rl]:
    """Return the command with the networks blue and closed, the second one without a way out."""
    rl("network", "create", "blue")
    rl("network", "create", "--internal", "closed")
    yield rl
    rl("network", "rm", "-f", "blue", "closed")


def interfaces(rl: Rl, name: str) -> list[str]:
    """Return a container's interfaces by their index."""
    lines = rl("exec", name, "ip", "-o", "link").stdout.splitlines()
    return [line.split()[1].rstrip(":").partition("@")[0] for line in lines]


def ports(rl: Rl, name: str) -> str:
    return (
        rl("port", name).stdout
        + rl("ps", "--filter", f"name={name}", "--format", "{{.Ports}}").stdout.strip()
    )


@pytest.mark.parametrize("rest", [(), ("--network", "closed")])
def test_last_network_that_leads_out_takes_the_way_out_and_the_ports_along(
    nets: Rl, rest: tuple[str, ...]
) -> None:
    with server(nets, "--network", "blue", *rest, "-p", "80"):
        port = published(nets, "server")
        assert ask(HOST, port) == HOST
        nets("network", "disconnect", "blue", "server")
        # By its end, and not a while after.
        with pytest.raises(ConnectionRefusedError):
            ask(HOST, port)
        assert interfaces(nets, "server") == ["lo", *(["eth1"] if rest else [])]
        assert "->" not in ports(nets, "server")
        assert nets("inspect", "-f", "{{.State.Status}}", "server").stdout == "running\n"


@pytest.mark.parametrize("first", ["blue", "closed"])
def test_network_that_leads_out_brings_the_way_out_and_the_ports(nets: Rl, first: str) -> None:
    with server(nets, "--network", first, "-p", "80"):
        if first == "blue":
            nets("network", "disconnect", "blue", "server")
        assert "->" not in ports(nets, "server")
        nets("network", "connect", "blue", "server")
        assert ask(HOST, published(nets, "server")) == HOST
        assert "default" in nets("exec", "server", "ip", "route").stdout
        assert reach(nets, "server", "--network", "blue").startswith("reached as 10.")


def test_way_out_whose_port_is_taken_meanwhile_does_not_end_the_container(nets: Rl) -> None:
    with server(nets, "--network", "blue", "-p", "80"):
        port = published(nets, "server")
    with (
        server(nets, "--network", "closed", "-p", f"{port}:80"),
        server(nets, "--network", "blue", "-p", f"{port}:80", name="other"),
    ):
        refused = nets("network", "connect", "blue", "server", check=False)
        assert refused.returncode != 0
        assert str(port) in refused.stderr
        assert interfaces(nets, "server") == ["lo", "eth0"]
        assert list(_networks(nets, "server")) == ["closed"]


def test_container_that_has_none_of_its_networks_left_has_loopback_only(nets: Rl) -> None:
    with server(nets, "--network", "blue", "-p", "80"):
        port = published(nets, "server")
        nets("network", "disconnect", "blue", "server")
        assert _networks(nets, "server") == {}
        nets("restart", "-t", "0", "server")
        wait_until_up(nets, "server", 2)
        assert interfaces(nets, "server") == ["lo"]
        wait_until_refused(HOST, port)
        assert "->" not in ports(nets, "server")
        assert _networks(nets, "server") == {}
        shown = nets("ps", "--filter", "name=server", "--format", "{{.Networks}}").stdout
        assert shown.strip() == ""
        nets("stop", "-t", "0", "server")
        nets("network", "connect", "blue", "server")
        nets("start", "server")
        wait_until_up(nets, "server", 3)
        assert ask(HOST, published(nets, "server")) == HOST
        assert addresses(nets, "server", "blue")


def _networks(rl: Rl, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(rl("inspect", name).stdout)[0]["NetworkSettings"][
        "Networks"
    ]
    return found


def test_network_comes_before_the_way_out(nets: Rl) -> None:
    # The first container has to wait for the network to be made.
    for name in ("first", "second"):
        nets("run", "-d", "--init", "--name", name, "--network", "blue", *SERVE)
    try:
        for name in ("first", "second"):
            assert interfaces(nets, name) == ["lo", "eth0", "tap0"]
    finally:
        nets("rm", "-f", "first", "second")


def test_way_out_comes_before_a_network_where_it_was_there_first(nets: Rl) -> None:
    nets("create", "--init", "--name", "box", *SERVE)
    try:
        nets("network", "connect", "blue", "box")
        nets("start", "box")
        assert interfaces(nets, "box") == ["lo", "eth0", "eth1"]
        nets("network", "disconnect", "blue", "box")
        assert interfaces(nets, "box") == ["lo", "eth0"]
    finally:
        nets("rm", "-f", "box")
