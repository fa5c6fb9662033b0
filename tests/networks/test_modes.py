"""Containers in the networks that they can have, and what they reach from there."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.networks.support import (
    HOST,
    PYTHON,
    ask,
    published,
    server,
    wait_until_refused,
    wait_until_up,
)
from tests.support import leaks
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

PROGRAMS = ("pasta", "slirp4netns")
CLIENT = """
import socket
try:
    print(socket.create_connection((%r, %d), timeout=%r).makefile().read(), end="")
except OSError as error:
    print(error)
"""


def reach(rl: Rl, address: str, port: int, *options: str, seconds: float = PATIENCE) -> str:
    """Return what a container gets from a port within ``seconds``, or why it got nothing."""
    client = ("/usr/bin/python3", "-c", CLIENT % (address, port, seconds))
    return out(rl, *PYTHON, *options, "alpine", *client)


def out(rl: Rl, *arguments: str) -> str:
    return rl("run", "--rm", *arguments).stdout


class Greeter:
    """A server on the host that greets whoever connects."""

    def __init__(self, address: str) -> None:
        self._listening = socket.create_server((address, 0))
        self.port: int = self._listening.getsockname()[1]
        self._pid = os.fork()
        if self._pid == 0:
            while True:
                connection, _ = self._listening.accept()
                connection.sendall(b"hello\n")
                connection.close()

    def __enter__(self) -> int:
        return self.port

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._listening.close()


def helpers(rl: Rl) -> list[int]:
    """Return the processes that connect containers of ``rl``: their names begin with its path."""
    found = []
    for line in leaks.processes(rl.directory):
        pid, _, command = line.partition(" ")
        if command.split(" ")[0].rpartition("/")[2] in PROGRAMS:
            found.append(int(pid))
    return found


@pytest.mark.parametrize("network", [(), ("--network", "slirp4netns"), ("--net", "bridge")])
def test_container_reaches_the_host_by_name_from_an_address_of_its_own(
    rl: Rl, network: tuple[str, ...]
) -> None:
    with Greeter(HOST) as port:
        assert reach(rl, "host.containers.internal", port, *network) == "hello\n"
    address = out(rl, *network, "alpine", "ip", "-o", "-4", "addr", "show", "dev", "eth0")
    assert "inet 10.0.2.100/24 " in address


@pytest.mark.parametrize("program", PROGRAMS)
def test_loopback_of_the_host_is_out_of_reach(rl: Rl, program: str) -> None:
    with Greeter("127.0.0.1") as port:
        for address in ("127.0.0.1", "10.0.2.2", "10.0.2.3", "10.0.2.100", HOST):
            answer = reach(rl, address, port, "--network", program, seconds=2)
            assert "hello" not in answer
    wait_until(lambda: helpers(rl) == [])


# Bound to the interface, a socket is not bound to the table of local addresses; a packet socket
# is bound to nothing.
SNEAK = """
import socket
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as sneaking:
        sneaking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        try:
            sneaking.sendto(b"got you", (address, %d))
        except OSError as error:
            print(error.strerror)
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except OSError as error:
    print(error.strerror)
# Its own loopback is open.
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    with socket.create_server((address, 0), family=family) as own:
        socket.create_connection(own.getsockname()[:2]).close()
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_trick_leads_to_the_loopback_of_the_host(rl: Rl, program: str) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listening6,
    ):
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        listening6.bind(("::1", port))
        client = ("/usr/bin/python3", "-c", SNEAK % port)
        said = out(rl, *PYTHON, "--network", program, "alpine", *client).splitlines()
        assert said[0] == said[-1] == "Operation not permitted"
        assert said[1] in ("Permission denied", "Network is unreachable")
        # What is sent after it, and comes, shows that nothing came before.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            control.sendto(b"control", ("127.0.0.1", port))
        assert listening.recv(100) == b"control"
        listening6.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening6.recv(100)


def test_without_what_forbids_it_the_trick_works(rl: Rl) -> None:
    # As root of its own network a container can take that away, if it is allowed to.
    undo = 'ip xfrm policy flush && ip -6 rule del to ::1 && exec python3 -c "$0"'
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listening6,
    ):
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        listening6.bind(("::1", port))
        options = ("--cap-add", "NET_ADMIN", "-e", "PATH=/usr/bin:/bin")
        out(rl, *PYTHON, *options, "alpine", "sh", "-c", undo, SNEAK % port)
        for heard in (listening, listening6):
            heard.settimeout(PATIENCE)
            assert heard.recv(100) == b"got you"


@pytest.mark.parametrize("network", ["pasta:--map-gw", "slirp4netns:allow_host_loopback=true"])
def test_loopback_of_the_host_is_in_reach_when_asked_for(rl: Rl, network: str) -> None:
    with Greeter("127.0.0.1") as port:
        assert reach(rl, "10.0.2.2", port, "--network", network) == "hello\n"


def test_loopback_of_the_host_is_shared_with_the_hosts_network(rl: Rl) -> None:
    with Greeter("127.0.0.1") as port:
        assert reach(rl, "127.0.0.1", port, "--network", "host") == "hello\n"


def test_container_without_network_has_loopback_only(rl: Rl) -> None:
    script = "ip -o link | wc -l; ping -c 1 127.0.0.1 >/dev/null && echo alive"
    assert out(rl, "--network", "none", "alpine", "sh", "-c", script).split() == ["1", "alive"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_network_is_there_before_the_command_runs(rl: Rl, program: str) -> None:
    script = "ip route | head -n 1"
    for _ in range(5):
        found = out(rl, "--network", program, "alpine", "sh", "-c", script)
        assert found == "default via 10.0.2.2 dev eth0 \n"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("options", [("--userns", "keep-id"), ("-u", "1000:1000")])
def test_network_is_there_for_whoever_runs_in_it(
    rl: Rl, program: str, options: tuple[str, ...]
) -> None:
    with server(rl, "--network", program, *options, "-p", f"{HOST}::80") as name:
        assert ask(HOST, published(rl, name)) == HOST


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_that_connects_it_ends_with_the_container(rl: Rl, program: str) -> None:
    with server(rl, "--network", program) as name:
        (helper,) = helpers(rl)
        pid = json.loads(rl("inspect", name).stdout)[0]["State"]["Pid"]
        # It is no process of the container, and none that the container sees.
        assert os.readlink(f"/proc/{pid}/ns/pid") != _pid_namespace(helper)
        assert program not in rl("exec", name, "ps").stdout
    wait_until(lambda: helpers(rl) == [])


def _pid_namespace(pid: int) -> str:
    # pasta lets nobody read its links; the last of its pids is that in its own namespace.
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("NSpid:"))
    return os.readlink("/proc/self/ns/pid") if len(line.split()) == 2 else "another"


@pytest.mark.parametrize("program", PROGRAMS)
def test_supervisor_that_is_killed_takes_the_network_along(rl: Rl, program: str) -> None:
    with server(rl, "--network", program, "-p", "127.0.0.1::80") as name:
        port = published(rl, name)
        identity = rl("inspect", "-f", "{{.Id}}", name).stdout.strip()
        state = json.loads((rl.root / "containers" / identity / "state.json").read_bytes())
        os.kill(state["supervisor"]["pid"], signal.SIGKILL)
        assert leaks.wait_for_none(rl.directory) == []
        wait_until_refused("127.0.0.1", port)


@pytest.mark.parametrize("program", PROGRAMS)
def test_container_whose_network_is_killed_ends_and_says_why(rl: Rl, program: str) -> None:
    with server(rl, "--network", program) as name:
        (helper,) = helpers(rl)
        os.kill(helper, signal.SIGKILL)
        assert rl("wait", name).stdout == "125\n"
        assert rl("inspect", "-f", "{{.State.Error}}", name).stdout == (
            f"the container's network failed: {program}: it was killed by SIGKILL\n"
        )
    assert leaks.wait_for_none(rl.directory) == []


def test_restart_policy_brings_the_network_back(rl: Rl) -> None:
    with server(rl, "--restart", "always", "-p", "127.0.0.1::80") as name:
        (helper,) = helpers(rl)
        os.kill(helper, signal.SIGKILL)
        wait_until(lambda: helpers(rl) not in ([], [helper]))
        wait_until_up(rl, name, 2)
        assert ask("127.0.0.1", published(rl, name))


def test_network_that_cannot_be_made_is_an_error_that_says_why(rl: Rl) -> None:
    done = rl(
        "run", "--rm", "--network", "pasta:-i,nosuchlink", "alpine", "echo", "ran", check=False
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("rl: the container's network failed: pasta: ")
    assert leaks.wait_for_none(rl.directory) == []


def test_names_and_addresses_are_those_that_were_asked_for(rl: Rl) -> None:
    options = (
        "--add-host", "db:192.0.2.7", "--add-host", "me:host-gateway", "--dns", "192.0.2.53",
        "--dns-search", "example.org", "--dns-option", "ndots:3", "--hostname", "box",
        "--ip", "10.0.2.7", "--mac-address", "92:d0:c6:0a:29:33",
    )  # fmt: skip
    script = "cat /etc/resolv.conf /etc/hosts; ip -o addr; ip -o link"
    found = out(rl, *options, "alpine", "sh", "-c", script)
    assert "search example.org\nnameserver 192.0.2.53\noptions ndots:3\n" in found
    for line in ("192.0.2.7\tdb\n", f"{HOST}\tme\n", "10.0.2.7\tbox\n"):
        assert line in found
    assert "inet 10.0.2.7/24 " in found
    assert "link/ether 92:d0:c6:0a:29:33 " in found


def test_info_tells_the_programs_and_the_default(rl: Rl) -> None:
    found = json.loads(rl("info", "--format", "json").stdout)
    assert (found["DefaultNetwork"], found["Pasta"] != "missing") == ("pasta", True)
    assert found["Slirp4netns"].endswith("/slirp4netns")
