"""Real servers in containers, and clients of the host.

The server tells each client the address that it sees the client at. It runs in the host's own
Python, whose files are mounted into the container.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rootless.networks.etc import host_address
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

PYTHON = ("-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro")
SERVER = """
import socket, threading
def plain(address):
    return address.removeprefix("::ffff:")
def tcp():
    while True:
        connection, client = listening.accept()
        connection.recv(100)
        connection.sendall(plain(client[0]).encode())
        connection.close()
def udp():
    while True:
        _, client = datagrams.recvfrom(100)
        datagrams.sendto(plain(client[0]).encode(), client)
listening = socket.create_server(("", 80), family=socket.AF_INET6, dualstack_ipv6=True)
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.bind(("", 80))
print("up", flush=True)
threading.Thread(target=udp).start()
tcp()
"""
HOST = host_address()
QUESTION = b"who am I?\n"
RESEND_SECONDS = 5.0


@contextmanager
def server(rl: Rl, *options: str, name: str = "server") -> Iterator[str]:
    """Run the server on port 80 of a detached container until the block ends."""
    rl(
        "run", "-d", "--init", "--name", name, *PYTHON, *options,
        "alpine", "/usr/bin/python3", "-c", SERVER,
    )  # fmt: skip
    try:
        wait_until_up(rl, name)
        yield name
    finally:
        rl("rm", "-f", name)


def wait_until_up(rl: Rl, name: str, times: int = 1) -> None:
    """Wait until the server of a container has started, for the time ``times``."""
    with rl.start("logs", "-f", name, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        found = 0
        for line in follower.stdout:
            found += line == b"up\n"
            if found == times:
                break
        follower.kill()


def published(rl: Rl, name: str, port: str = "80/tcp") -> int:
    """Return the port of the host that leads to a container's."""
    return int(rl("port", name, port).stdout.split()[0].rpartition(":")[2])


def ask(address: str, port: int) -> str:
    """Return what the server on a port of the host answers by TCP; OSError if nothing does."""
    with socket.create_connection((address, port), timeout=PATIENCE) as connection:
        # pasta of Debian 12 loses what a server says before its client has.
        connection.sendall(QUESTION)
        answer = connection.makefile().read()
    if not answer:
        raise ConnectionResetError("the connection ended without an answer")
    return answer


def wait_until_refused(address: str, port: int) -> None:
    """Wait until nothing listens on a port of the host any more."""

    def refused() -> bool:
        try:
            socket.create_connection((address, port), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False

    wait_until(refused)


def ask_udp(address: str, port: int) -> str:
    """Return what the server on a port of the host answers by UDP.

    Not by loopback: Debian 12's programs lose the answers there.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(RESEND_SECONDS)
        client.connect((address, port))
        for _ in range(int(PATIENCE / RESEND_SECONDS)):
            client.send(QUESTION)
            # A datagram may be lost on a busy machine.
            with suppress(TimeoutError):
                return client.recv(100).decode()
    raise TimeoutError(f"no answer from {address}:{port}/udp")
