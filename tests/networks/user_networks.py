"""User networks of a test: made and removed, looked at from inside, and who serves them."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from tests.networks.support import PYTHON
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE

_CLIENT = """
import ipaddress, socket, sys
address, port, device = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
try:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    family, kind, _, _, place = found[0]
    connection = socket.socket(family, kind)
    connection.settimeout(%d)
    for name in device:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
    connection.connect(place)
    connection.sendall(b"?")
    # On the way out something may answer for everybody.
    print("reached as", ipaddress.ip_address(connection.makefile().read()))
except (OSError, ValueError) as error:
    print(error)
"""
# How long an answer may take that does not come.
IMPATIENCE = 3


def client(address: str, port: int = 80, *device: str, seconds: float = PATIENCE) -> list[str]:
    """Return a command that tells what it gets from the server of ``support``, or why nothing."""
    return ["/usr/bin/python3", "-c", _CLIENT % seconds, address, str(port), *device]


def reach(rl: Rl, address: str, *options: str, port: int = 80) -> str:
    """Return what a new container gets from a port."""
    return rl("run", "--rm", *PYTHON, *options, "alpine", *client(address, port)).stdout.strip()


def reach_from(rl: Rl, name: str, address: str, port: int = 80) -> str:
    """Return what a container that runs gets from a port."""
    return rl("exec", name, *client(address, port)).stdout.strip()


def try_from(rl: Rl, name: str, address: str, *device: str, port: int = 80) -> str:
    """Return why a container that runs gets nothing from a port; it waits for no long time."""
    asked = client(address, port, *device, seconds=IMPATIENCE)
    said = rl("exec", name, *asked).stdout.strip()
    assert "reached" not in said
    return said


def addresses(rl: Rl, name: str, network: str) -> list[str]:
    """Return a container's addresses on a network, that of IPv4 first."""
    found = json.loads(rl("inspect", name).stdout)[0]["NetworkSettings"]["Networks"][network]
    return [found[key] for key in ("IPAddress", "GlobalIPv6Address") if found[key]]


def serving(rl: Rl, name: str) -> list[int]:
    """Return the processes ``rl-holder`` or ``rl-dns`` of a store, by the log that they write."""
    log = str(rl.root / "holder.log")
    found: dict[int, int] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if (
                Path(f"/proc/{pid}/comm").read_text().strip() == name
                and os.readlink(f"/proc/{pid}/fd/2") == log
            ):
                parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
                found[int(pid)] = int(parent)
    # What the holder has done by a child has its name.
    return [pid for pid, parent in found.items() if parent not in found]
