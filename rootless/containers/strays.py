"""The processes of a container that has no PID namespace of its own, whose end would be theirs.

Owns the search for them, whoever their parents are by now. With the host's PID
namespace every process in the container's user namespace, or in one below it, is
the container's; with another container's, whose user namespace it has as well, what
is in its mount namespace or has its mounts. Called by the supervisor at each end,
and before a removal where there was no supervisor to do it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.kernel import proc

_NS_GET_PARENT: Final = 0xB702
# For a kernel to end what was killed, and for a fork bomb to lose.
_PATIENCE_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.01

Identity = tuple[int, int]


class Strays:
    """Processes of one container, but for ourselves."""

    def __contains__(self, pid: int) -> bool:
        """Tell whether a process is one of them."""
        raise NotImplementedError

    def members(self) -> list[int]:
        """Return those that run."""
        return [pid for pid in _processes() if pid in self]

    def kill(self) -> None:
        """Kill all, until there is none."""
        _kill_all(self.__contains__)

    def close(self) -> None:
        """Let the namespace go that they are known by."""


class OfHost(Strays):
    """All processes in the user namespace of ``pid``, which is not ours."""

    def __init__(self, pid: int) -> None:
        # Held open, so that the number cannot come to mean another one.
        self._held = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self._identity = _identity(self._held)

    def __contains__(self, pid: int) -> bool:
        """Tell whether a process is in the namespace or in one below it."""
        try:
            namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # another user's, or gone
            return False
        try:
            while _identity(namespace) != self._identity:
                parent = fcntl.ioctl(namespace, _NS_GET_PARENT)
                os.close(namespace)
                namespace = parent
            return True
        except OSError:  # there is none above
            return False
        finally:
            os.close(namespace)

    def close(self) -> None:
        """Let the namespace go."""
        os.close(self._held)


class OfOthers(Strays):
    """All processes in a container's mount namespace, of which this is a descriptor, ours now.

    And those that left it for one of their own, which takes CAP_SYS_ADMIN, but have its mounts.
    """

    def __init__(self, container_id: str, mounts: int) -> None:
        self._id = container_id
        self._held = mounts
        self._identity = _identity(mounts)

    def __contains__(self, pid: int) -> bool:
        """Tell whether a process is in the namespace or has what is mounted in it."""
        with contextlib.suppress(OSError):  # another user's, or gone
            found = os.stat(f"/proc/{pid}/ns/mnt")
            return (found.st_dev, found.st_ino) == self._identity or _has_mounts(pid, self._id)
        return False

    def close(self) -> None:
        """Let the namespace go."""
        os.close(self._held)


def find(container: Container, init: int) -> Strays:
    """Return the processes of a container that runs, and has no PID namespace of its own."""
    if "pid" in container.shared:
        return OfHost(init)
    mounts = os.open(f"/proc/{init}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    return OfOthers(container.id, mounts)


def kill_leftovers(container_id: str) -> None:
    """Kill what a container left behind whose supervisor was killed: what has its mounts."""
    _kill_all(lambda pid: _has_mounts(pid, container_id))


def _has_mounts(pid: int, container_id: str) -> bool:
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            return f"/containers/{container_id}/".encode() in file.read()
    except OSError:
        return False


def _kill_all(wanted: Callable[[int], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while found := [pid for pid in _processes() if wanted(pid)]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    # Asked again now that the number cannot come to mean another process.
                    if wanted(pid):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
        if time.monotonic() > deadline:
            raise RlError(f"processes of the container could not be killed: {found}")
        time.sleep(_PAUSE_SECONDS)


def _processes() -> Iterator[int]:
    for name in os.listdir("/proc"):
        # A zombie is nobody's any more.
        if name.isdecimal() and int(name) != os.getpid() and proc.start_time(int(name)) is not None:
            yield int(name)


def _identity(fd: int) -> Identity:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
