"""Published ports, with real servers behind them and real clients in front."""

from __future__ import annotations

import json
import socket

import pytest

from rootless.networks import mode
from tests.networks.support import (
    HOST,
    PYTHON,
    ask,
    ask_udp,
    published,
    server,
    wait_until_refused,
    wait_until_up,
)
from tests.support import leaks
from tests.support.runner import Rl

PROGRAMS = ("pasta", "slirp4netns")
# What a port without an address is open on, by the default network.
EVERYWHERE = (
    ["0.0.0.0", "[::]"]
    if mode.choose(None)[0].name == "pasta" and 6 in mode.default_families()
    else ["0.0.0.0"]
)


def test_published_port_shows_the_server_the_clients_own_address(rl: Rl) -> None:
    with server(rl, "-p", "80") as name:
        assert ask(HOST, published(rl, name)) == HOST
    with server(rl, "-p", "80/udp") as name:
        assert ask_udp(HOST, published(rl, name, "80/udp")) == HOST


@pytest.mark.parametrize("program", PROGRAMS)
def test_published_ports_lead_to_the_container_by_tcp_and_udp(rl: Rl, program: str) -> None:
    with server(rl, "--network", program, "-p", f"{HOST}::80", "-p", f"{HOST}::80/udp") as name:
        assert ask(HOST, published(rl, name))
        assert ask_udp(HOST, published(rl, name, "80/udp"))


def test_port_published_on_one_address_is_not_there_on_another(rl: Rl) -> None:
    with server(rl, "-p", "127.0.0.1::80") as name:
        port = published(rl, name)
        assert ask("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            ask(HOST, port)


def test_port_can_be_published_by_ipv6(rl: Rl) -> None:
    with server(rl, "-p", "[::1]::80") as name:
        assert rl("port", name).stdout.startswith("80/tcp -> [::1]:")
        assert ask("::1", published(rl, name))


def test_every_address_includes_those_of_ipv6(rl: Rl) -> None:
    with server(rl, "-p", "80") as name:
        assert ask("::1", published(rl, name))


@pytest.mark.parametrize("program", PROGRAMS)
def test_forwarding_ends_with_the_container_and_begins_again_with_it(rl: Rl, program: str) -> None:
    with server(rl, "--network", program, "-p", "127.0.0.1::80") as name:
        rl("stop", "-t", "0", name)
        assert rl("port", name).stdout == ""
        rl("start", name)
        wait_until_up(rl, name, 2)
        port = published(rl, name)
        assert ask("127.0.0.1", port)
        rl("restart", "-t", "0", name)
        wait_until_up(rl, name, 3)
        assert ask("127.0.0.1", published(rl, name))
        port = published(rl, name)
        rl("stop", "-t", "0", name)
        wait_until_refused("127.0.0.1", port)


def test_ports_are_shown_as_docker_shows_them(rl: Rl) -> None:
    with taken() as first, taken() as second:
        numbers = [first, second]
    options = ("-p", f"127.0.0.1:{numbers[0]}:80", "-p", f"{numbers[1]}:53/udp", "--expose", "443")
    with server(rl, *options) as name:
        assert rl("port", name).stdout == (
            "".join(f"53/udp -> {address}:{numbers[1]}\n" for address in EVERYWHERE)
            + f"80/tcp -> 127.0.0.1:{numbers[0]}\n"
        )
        assert rl("port", name, "80").stdout == f"127.0.0.1:{numbers[0]}\n"
        missing = rl("port", name, "81", check=False)
        assert (missing.returncode, missing.stderr) == (
            1,
            "rl: no public port '81/tcp' published for server\n",
        )
        assert rl("ps", "--format", "{{.Ports}}").stdout == (
            f"127.0.0.1:{numbers[0]}->80/tcp, "
            + "".join(f"{address}:{numbers[1]}->53/udp, " for address in EVERYWHERE)
            + "443/tcp\n"
        )
        shown = json.loads(rl("inspect", name).stdout)[0]
        assert shown["NetworkSettings"]["Ports"] == {
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(numbers[0])}],
            "53/udp": [
                {"HostIp": address.strip("[]"), "HostPort": str(numbers[1])}
                for address in EVERYWHERE
            ],
            "443/tcp": None,
        }
        assert set(shown["Config"]["ExposedPorts"]) == {"80/tcp", "53/udp", "443/tcp"}


def test_all_exposed_ports_are_published_when_asked_for(rl: Rl) -> None:
    with server(rl, "-P", "--expose", "80", "--expose", "80/udp") as name:
        lines = rl("port", name).stdout.splitlines()
        assert [line.rpartition(":")[0] for line in lines] == [
            f"80/{protocol} -> {address}" for protocol in ("tcp", "udp") for address in EVERYWHERE
        ]
        assert ask(HOST, published(rl, name)) == HOST
        if "[::]" in EVERYWHERE:
            assert ask("::1", published(rl, name))


def test_range_of_the_host_gives_the_first_port_that_is_free(rl: Rl) -> None:
    with taken() as first:
        options = ("-p", f"127.0.0.1:{first}-{first + 20}:80")
        with server(rl, *options) as name:
            assert first < published(rl, name) <= first + 20
            assert ask("127.0.0.1", published(rl, name))


@pytest.mark.parametrize("program", PROGRAMS)
def test_port_in_use_is_an_error_before_anything_runs(rl: Rl, program: str) -> None:
    with taken() as port:
        done = rl(
            "run", "--rm", "--network", program, "-p", f"127.0.0.1:{port}:80", "alpine",
            "echo", "ran", check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        f"rl: cannot publish port 80/tcp on 127.0.0.1:{port}: "
        "port is already allocated (Address already in use)\n"
    )
    assert leaks.wait_for_none(rl.directory) == []
    assert rl("ps", "-aq").stdout == ""


def test_two_containers_cannot_have_the_same_port(rl: Rl) -> None:
    with server(rl, "-p", f"{HOST}::80/udp") as name:
        port = published(rl, name, "80/udp")
        done = rl("run", "--rm", "-p", f"{HOST}:{port}:80/udp", "alpine", "true", check=False)
        assert (done.returncode, "port is already allocated" in done.stderr) == (125, True)
        assert ask_udp(HOST, port)


def test_port_that_only_root_may_have_is_an_error_that_names_the_sysctl(rl: Rl) -> None:
    done = rl("run", "--rm", "-p", "80:80", "alpine", "true", check=False)
    assert done.returncode == 125
    assert "net.ipv4.ip_unprivileged_port_start" in done.stderr


def test_ports_without_a_network_of_its_own_are_said_to_be_discarded(rl: Rl) -> None:
    done = rl("run", "--rm", "--network", "host", "-p", "80", "alpine", "true")
    assert done.stderr == (
        "rl: warning: published ports are discarded when using host network mode\n"
    )


def test_slirp4netns_says_that_it_has_no_ports_of_ipv6(rl: Rl) -> None:
    done = rl(
        "run", "--rm", "--network", "slirp4netns", "-p", "[::1]::80", "alpine", "true", check=False
    )
    assert done.returncode == 125
    assert "IPv4 addresses only" in done.stderr


def test_container_reaches_what_another_publishes(rl: Rl) -> None:
    with server(rl, "-p", "80") as name:
        place = ("host.containers.internal", published(rl, name))
        client = f"""
import socket
connection = socket.create_connection({place})
connection.sendall(b"hello")
print(connection.makefile().read())
"""
        done = rl("run", "--rm", *PYTHON, "alpine", "/usr/bin/python3", "-c", client)
        assert done.stdout == f"{HOST}\n"


def taken() -> Taken:
    """Return a port of loopback that is in use as long as the block lasts."""
    return Taken()


class Taken:
    def __enter__(self) -> int:
        self._socket = socket.create_server(("127.0.0.1", 0))
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._socket.close()
