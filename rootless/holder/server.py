"""The process rl-holder: it owns a user namespace, and in it what containers share.

Answers requests of supervisors, one at a time, and takes back what a supervisor had once its
connection ends, however it ended. Goes with the last of them. Knows no service: each is a
module, loaded when it is asked for first. Started by ``start``.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
from collections.abc import Iterator
from typing import Any, Final, Protocol

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.files import read_text
from rootless.holder import cgroup, lock
from rootless.kernel import syscalls

_COMING_MILLISECONDS: Final = 100


class Service(Protocol):
    """One kind of things that the holder holds; ``client`` is a number that is never used again."""

    def serve(
        self, client: int, message: dict[str, Any], fds: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """Do what is asked and return the answer; RlError if it cannot be done.

        The descriptors it got are closed afterwards, and so are those that it returns.
        """

    def left(self, client: int) -> None:
        """Take back what a client had, who is gone."""

    def watched(self) -> list[int]:
        """Return what to poll for: descriptors that say that ``advance`` has something to do."""

    def advance(self) -> None:
        """Take note of what has happened."""


def load(name: str) -> Service:
    """Return a new service; RlError if there is none of that name."""
    match name:
        case "network":
            from rootless.holder.network import Networks

            return Networks()
        case "volume":
            from rootless.volumes.service import Volumes

            return Volumes()
    raise RlError(
        f"rl-holder has no {name!r} (is it of another version? It ends with the containers that "
        "use it)"
    )


class Server:
    """All clients and what they have."""

    def __init__(self, root: str, listener: socket.socket) -> None:
        self._root = root
        self._listener = listener
        self._listener.setblocking(False)
        self._clients: dict[int, Channel] = {}
        self._count = 0
        self._services: dict[str, Service] = {}

    def run(self) -> None:
        """Serve until nobody is left."""
        while True:
            self._accept()
            if not self._clients and self._unlinked():
                return
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            for channel in self._clients.values():
                poll.register(channel, select.POLLIN)
            for service in self._services.values():
                for fd in service.watched():
                    poll.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            for number, channel in list(self._clients.items()):
                if channel.fileno() in ready:
                    self._hear(number, channel)
            for service in self._services.values():
                if not ready.isdisjoint(service.watched()):
                    with _logged():
                        service.advance()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                end, _ = self._listener.accept()
                end.setblocking(True)
                self._clients[self._count] = Channel(end)
                self._count += 1

    def _unlinked(self) -> bool:
        """Tell whether nobody can come any more; whoever comes holds the lock."""
        with lock.tried(self._root) as held:
            if not held:
                # Somebody is just coming, or thinks better of it.
                coming = select.poll()
                coming.register(self._listener, select.POLLIN)
                coming.poll(_COMING_MILLISECONDS)
                return False
            self._accept()
            if self._clients:
                return False
            lock.remove_address(self._root)
            return True

    def _hear(self, number: int, channel: Channel) -> None:
        fds: list[int] = []
        try:
            message, fds = channel.receive()
            if message is None:
                self._leave(number)
                return
            answer, given = self._answer(number, message, fds)
            if not channel.offer(answer, *given):
                # It does not read what it asks for.
                self._leave(number)
            for fd in given:
                os.close(fd)
        except (OSError, ValueError):
            self._leave(number)
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(
        self, number: int, message: dict[str, Any], fds: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        try:
            name = str(message.get("service"))
            if name == "holder":
                return _own_namespace()
            service = self._services.get(name)
            if service is None:
                service = self._services[name] = load(name)
            return service.serve(number, message, fds)
        except RlError as error:
            return {"error": str(error)}, []
        except Exception as error:
            # One request that fails takes nothing from the other clients.
            return {"error": f"internal error of rl-holder: {type(error).__name__}: {error}"}, []

    def _leave(self, number: int) -> None:
        self._clients.pop(number).close()
        for service in self._services.values():
            with _logged():
                service.left(number)


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Log what fails in this block: it takes nothing from other clients."""
    try:
        yield
    except Exception:
        import traceback

        traceback.print_exc()


def _own_namespace() -> tuple[dict[str, Any], list[int]]:
    """Return a descriptor of the user namespace, and its maps as they are, whatever subuid says."""
    maps = {name: read_text(f"/proc/self/{name}") for name in ("uid_map", "gid_map")}
    return maps, [os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)]


def main(root: str, listener: socket.socket) -> int:
    """Be rl-holder, as root of the user namespace that it owns."""
    syscalls.set_process_name("rl-holder")
    # It ends with its clients: whoever wants containers to stop tells their supervisors.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # What the host mounts comes along, what we mount stays here.
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    Server(root, listener).run()
    with contextlib.suppress(OSError):
        cgroup.leave()
    return 0
