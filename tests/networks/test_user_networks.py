"""Containers on user networks: whom they reach, by which way they leave, and what remains."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.networks.support import HOST, ask, published, server, wait_until_up
from tests.networks.user_networks import (
    addresses,
    client,
    reach,
    reach_from,
    serving,
    try_from,
)
from tests.support import leaks
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

SERVE = ("alpine", "sleep", "1000")


@pytest.fixture
def nets(rl: Rl) -> Iterator[Rl]:
    """Return the command with the networks blue (of both IPs), red and closed."""
    rl("network", "create", "--ipv6", "blue")
    rl("network", "create", "red")
    rl("network", "create", "--internal", "closed")
    yield rl
    rl("network", "rm", "-f", "blue", "red", "closed")


def wait_until_found(rl: Rl, name: str, wanted: str) -> None:
    """Wait until a container reaches another one by its name: the DNS server may just begin."""
    wait_until(lambda: reach_from(rl, name, wanted).startswith("reached as"))


def test_containers_reach_each_other_by_either_ip_and_see_who_comes(nets: Rl) -> None:
    with (
        server(nets, "--network", "blue"),
        server(nets, "--network", "blue", name="other"),
    ):
        for mine, its in zip(
            addresses(nets, "other", "blue"), addresses(nets, "server", "blue"), strict=True
        ):
            assert reach_from(nets, "other", its) == f"reached as {mine}"
            assert reach_from(nets, "server", mine) == f"reached as {its}"


def test_container_that_joins_one_of_a_network_is_there_as_that_one(nets: Rl) -> None:
    blue = ("--network", "blue")
    with server(nets, *blue), server(nets, *blue, name="other"):
        its = addresses(nets, "server", "blue")
        found = reach(nets, "other", "--network", "container:server")
        assert found in [f"reached as {address}" for address in its]
        done = nets("run", *blue, "--uts", "container:server", "alpine", "true", check=False)
        assert "can be in no network of rl network create" in done.stderr


def test_network_is_isolated_from_the_others(nets: Rl) -> None:
    with (
        server(nets, "--network", "blue"),
        server(nets, "--network", "red", name="other"),
        server(nets, "--network", "closed", name="shut"),
    ):
        (blue, _), (red,) = addresses(nets, "server", "blue"), addresses(nets, "other", "red")
        try_from(nets, "other", blue)
        try_from(nets, "other", blue, "eth0")
        try_from(nets, "server", red)
        try_from(nets, "server", red, "eth0")
        try_from(nets, "shut", red, "eth0")
        # A container that is on both is reached from both, and leads nobody through: not even one
        # that makes a route.
        both = ("--network", "blue", "--network", "red")
        assert reach(nets, blue, *both).startswith("reached as 10.")
        assert reach(nets, red, *both).startswith("reached as 10.")
        between = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"
        assert nets("run", "--rm", *both, "alpine", *between.split()).stdout == "0\n0\n"


def test_way_out_and_published_ports_are_those_of_the_default_network(nets: Rl) -> None:
    with server(nets, "--network", "blue", "-p", "80"):
        assert ask(HOST, published(nets, "server")) == HOST
        with socket.create_server((HOST, 0)) as outside:
            port = outside.getsockname()[1]
            going = nets.start("exec", "server", *client(HOST, port))
            connection, _ = outside.accept()
            connection.sendall(b"outside")
            connection.close()
            assert going.wait() == 0


def test_internal_network_has_no_way_out(nets: Rl) -> None:
    with (
        server(nets, "--network", "closed"),
        server(nets, "--network", "closed", name="other"),
    ):
        assert "default" not in nets("exec", "server", "ip", "route").stdout
        assert "unreachable" in try_from(nets, "server", HOST)
        (its,) = addresses(nets, "server", "closed")
        assert reach_from(nets, "other", its).startswith("reached as 10.")


def test_address_survives_a_restart(nets: Rl) -> None:
    with server(nets, "--network", "blue"):
        before = addresses(nets, "server", "blue")
        # Another one may not take it meanwhile.
        nets("restart", "-t", "0", "server")
        wait_until_up(nets, "server", 2)
        assert addresses(nets, "server", "blue") == before
        assert reach(nets, before[0], "--network", "blue").startswith("reached")


def test_running_container_is_connected_and_disconnected(nets: Rl) -> None:
    with (
        server(nets, "--network", "blue"),
        server(nets, "--network", "red", name="other"),
    ):
        (red,) = addresses(nets, "other", "red")
        try_from(nets, "server", red)
        nets("network", "connect", "red", "server")
        (mine,) = addresses(nets, "server", "red")
        assert reach_from(nets, "server", red) == f"reached as {mine}"
        assert reach_from(nets, "other", mine) == f"reached as {red}"
        nets("network", "disconnect", "red", "server")
        try_from(nets, "server", red)
        assert "eth1" not in nets("exec", "server", "ip", "link").stdout
        # What it had besides is as it was.
        its = addresses(nets, "server", "blue")[0]
        assert reach(nets, its, "--network", "blue").startswith("reached")


def test_container_that_runs_without_one_is_not_connected(nets: Rl) -> None:
    nets("run", "-d", "--init", "--name", "plain", *SERVE)
    try:
        refused = nets("network", "connect", "blue", "plain", check=False)
        assert refused.returncode != 0
        assert "runs without a user network" in refused.stderr
        assert refused.stderr.count("\n") == 1
        nets("stop", "-t", "0", "plain")
        nets("network", "connect", "blue", "plain")
        nets("start", "plain")
        assert "10." in addresses(nets, "plain", "blue")[0]
        assert "eth1" in nets("exec", "plain", "ip", "link").stdout
    finally:
        nets("rm", "-f", "plain")


@pytest.mark.parametrize("ids", ["keep-id", "nomap", "auto", "single"])
def test_ids_of_a_container_are_its_own_on_a_network_too(nets: Rl, ids: str) -> None:
    with server(nets, "--network", "blue"):
        its = addresses(nets, "server", "blue")[0]
        seen = reach(nets, its, "--network", "blue", "--userns", ids)
        assert seen.startswith("reached as 10.")
    plain = nets("run", "--rm", "--userns", ids, "alpine", "sh", "-c", "id -u; ls -ln /etc/passwd")
    on_it = nets(
        "run", "--rm", "--network", "blue", "--userns", ids, "alpine",
        "sh", "-c", "id -u; ls -ln /etc/passwd",
    )  # fmt: skip
    assert on_it.stdout == plain.stdout


def test_exec_and_cp_enter_a_container_on_a_network(nets: Rl) -> None:
    nets("run", "-d", "--init", "--name", "box", "--network", "blue", *SERVE)
    try:
        nets("exec", "box", "sh", "-c", "echo hello > /tmp/said; chown 7:7 /tmp/said")
        assert "hello" in nets("cp", "box:/tmp/said", "-").stdout
        assert nets("exec", "-u", "7", "box", "cat", "/tmp/said").stdout == "hello\n"
        assert "eth0" in nets("exec", "box", "ls", "/sys/class/net").stdout
    finally:
        nets("rm", "-f", "box")


def test_loopback_of_the_host_and_of_others_is_out_of_reach(nets: Rl) -> None:
    with (
        server(nets, "--network", "blue"),
        server(nets, "--network", "blue", name="other"),
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        port = listening.getsockname()[1]
        gateway = addresses(nets, "server", "blue")[0].rpartition(".")[0] + ".1"
        for device in ("eth0", "tap0"):
            try_from(nets, "server", "127.0.0.1", device, port=port)
            try_from(nets, "server", "127.0.0.1", device, port=80)
        try_from(nets, "server", gateway, port=port)
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_nothing_is_left_when_the_last_container_has_gone(fresh_rl: Rl) -> None:
    fresh_rl("network", "create", "blue")
    for _ in range(2):
        fresh_rl("run", "-d", "--network", "blue", *SERVE)
    assert len(serving(fresh_rl, "rl-holder")) == 1
    fresh_rl("rm", "-fa")
    assert leaks.wait_for_none(fresh_rl.directory, PATIENCE) == []
    assert not (fresh_rl.root / "holder.sock").exists()


def test_two_stores_do_not_disturb_each_other(nets: Rl, fresh_rl: Rl) -> None:
    fresh_rl("network", "create", "--subnet", "10.77.7.0/24", "blue")
    with (
        server(nets, "--network", "blue"),
        server(fresh_rl, "--network", "blue:ip=10.77.7.9"),
    ):
        its = addresses(nets, "server", "blue")[0]
        try_from(fresh_rl, "server", its)
        try_from(nets, "server", "10.77.7.9")
        (holder,) = serving(fresh_rl, "rl-holder")
        os.kill(holder, signal.SIGKILL)
        assert reach(nets, its, "--network", "blue").startswith("reached")


def test_container_whose_holder_is_killed_fails_and_says_why(nets: Rl) -> None:
    nets("run", "-d", "--name", "box", "--network", "blue", *SERVE)
    try:
        (holder,) = serving(nets, "rl-holder")
        os.kill(holder, signal.SIGKILL)
        assert nets("wait", "box").stdout == "125\n"
        error = nets("inspect", "--format", "{{.State.Error}}", "box").stdout
        assert "rl-holder ended" in error
        nets("start", "box")
        assert nets("inspect", "--format", "{{.State.Status}}", "box").stdout == "running\n"
    finally:
        nets("rm", "-f", "box")


def test_restart_policy_brings_a_network_back(nets: Rl) -> None:
    always = ("--network", "blue", "--restart", "always")
    with server(nets, *always), server(nets, *always, name="other"):
        its = addresses(nets, "server", "blue")[0]
        (holder,) = serving(nets, "rl-holder")
        os.kill(holder, signal.SIGKILL)
        for name in ("server", "other"):
            wait_until_up(nets, name, 2)
        assert addresses(nets, "server", "blue")[0] == its
        assert reach_from(nets, "other", its).startswith("reached")


@pytest.mark.slow
def test_whoever_is_killed_nothing_is_left_and_it_can_be_done_again(fresh_rl: Rl) -> None:
    fresh_rl("network", "create", "blue")
    for victims in (
        ("rl-holder",), ("rl-supervisor",), ("rl-dns",), ("rl-holder", "rl-supervisor"),
        ("rl-supervisor", "rl-holder"), ("rl-dns", "rl-holder"),
    ):  # fmt: skip
        fresh_rl("run", "-d", "--name", "first", "--network", "blue", *SERVE)
        with server(fresh_rl, "--network", "blue"):
            its = addresses(fresh_rl, "server", "blue")[0]
            assert reach(fresh_rl, its, "--network", "blue").startswith("reached")
            for victim in victims:
                for pid in _ours(fresh_rl, victim):
                    # Some end with those that were killed before.
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            fresh_rl("ps", "-a")
            fresh_rl("rm", "-f", "first")
        assert leaks.wait_for_none(fresh_rl.directory, PATIENCE) == []


def _ours(rl: Rl, name: str) -> list[int]:
    if name != "rl-supervisor":
        return serving(rl, name)
    found = []
    for line in leaks.processes(rl.directory):
        pid = int(line.split()[0])
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == name:
                    found.append(pid)
        except OSError:
            continue
    return found


def test_names_lead_to_containers_of_the_same_network(nets: Rl) -> None:
    with (
        server(nets, "--network", "blue", "--network-alias", "web"),
        server(nets, "--network", "blue", name="other"),
        server(nets, "--network", "red", name="foreign"),
    ):
        for name in ("server", "web"):
            wait_until_found(nets, "other", name)
        try_from(nets, "foreign", "server")
        nets("network", "connect", "blue", "foreign")
        wait_until_found(nets, "foreign", "server")
        nets("network", "disconnect", "blue", "foreign")
        try_from(nets, "other", "foreign")


def test_name_server_that_is_killed_is_there_again(nets: Rl) -> None:
    with server(nets, "--network", "blue"), server(nets, "--network", "blue", name="other"):
        killed: list[int] = []
        for _ in range(3):
            wait_until(lambda: set(serving(nets, "rl-dns")) - set(killed))
            killed.extend(set(serving(nets, "rl-dns")) - set(killed))
            os.kill(killed[-1], signal.SIGKILL)
            wait_until_found(nets, "other", "server")
