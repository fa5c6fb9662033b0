"""rl-volume, the process that serves one volume with a limit to all containers that have it.

It shows the volume's `_data` through an overlay without lower layers, mounted in a mount namespace
of its own, and gives each client a copy of that mount, which is mounted nowhere. Ends when its last
client has gone and the kernel needs it no more. Forked by `service`, as root of rl-holder's
user namespace, out of every container's sight.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.kernel import process, syscalls
from rootless.volumes.store import DATA, WORK, limit_of

if TYPE_CHECKING:
    from fuse_overlay.overlay import Overlay

_LOG: Final = "server.log"
# How long another server of the same volume, whose holder was killed, may take to end.
_PATIENCE_SECONDS: Final = 30.0
_STEP_SECONDS: Final = 0.05


def main(directory: str, control: Channel) -> int:
    """Serve the volume in ``directory``; every message of ``control`` brings a client's channel.

    A client that asks is sent a mount. One that comes too late gets no answer, and may ask for
    another server when its channel closes.
    """
    syscalls.set_process_name("rl-volume")
    process.die_with_parent()
    # A container in a namespace below ours cannot look into us, should it see us.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    clients = _Clients()
    if not clients.take(control):
        return 0
    try:
        _redirect(f"{directory}/{_LOG}")
        _serve(directory, control, clients)
    except (OSError, RlError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        clients.fail(f"cannot serve volume {os.path.basename(directory)}: {reason or error}")
        raise
    return 0


def _serve(directory: str, control: Channel, clients: _Clients) -> None:
    from fuse_overlay import mount
    from fuse_overlay.connection import Connection

    data = f"{directory}/{DATA}"
    overlay = _overlay(directory, data)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    device = mount.open_device()
    # Over the directory itself, of which the overlay has a descriptor: nobody else sees it there.
    mount.mount(device, data)
    connection = Connection(device, overlay)
    connection.handshake()
    root = os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def leave() -> None:
        """Let the kernel end the mount, once the last container's copy of it has gone."""
        os.close(root)
        mount.unmount(data)

    clients.begin(root, leave)

    def hear() -> bool:
        if not clients.take(control):
            connection.stop()
            return False
        return True

    connection.serve({control.fileno(): hear, clients.fileno(): clients.advance})


def _overlay(directory: str, data: str) -> Overlay:
    from fuse_overlay.overlay import Overlay

    limit = limit_of(directory)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return Overlay(
                [], data, f"{directory}/{WORK}",
                size=limit.size or None, inodes=limit.inodes or None,
            )  # fmt: skip
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(_STEP_SECONDS)


class _Clients:
    """The channels of those who have the volume."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._root = -1
        self._leave: Callable[[], None] | None = None

    def fileno(self) -> int:
        """Return a descriptor that is readable when a client is."""
        return self._poll.fileno()

    def take(self, control: Channel) -> bool:
        """Take the next client that ``control`` brings; False where there will be none."""
        message, fds = control.receive()
        if message is None:
            return False
        channel = Channel(socket.socket(fileno=fds[0]))
        self._channels[channel.fileno()] = channel
        self._poll.register(channel, select.EPOLLIN)
        return True

    def begin(self, root: int, leave: Callable[[], None]) -> None:
        """Give who asks a copy of the mount ``root``, and ``leave`` after the last."""
        self._root, self._leave = root, leave

    def advance(self) -> bool:
        """Answer those who ask, and take note of those who have gone; True to be called again."""
        for fd, _ in self._poll.poll(0):
            channel = self._channels[fd]
            if channel.receive()[0] is None:
                self._poll.unregister(channel)
                self._channels.pop(fd).close()
            elif self._leave is not None:
                flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
                tree = syscalls.open_tree("", flags, self._root)
                channel.offer({"tree": True}, tree)
                os.close(tree)
        if not self._channels and self._leave is not None:
            self._leave()
            self._leave = None
        return True

    def fail(self, why: str) -> None:
        """Tell all clients why there is nothing for them."""
        for channel in self._channels.values():
            answer: dict[str, Any] = {"error": why}
            channel.offer(answer)


def _redirect(log: str) -> None:
    """Turn our standard streams to the log, which has the last run alone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(log, flags, 0o600)
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), 0)
    for fd in (1, 2):
        os.dup2(opened, fd)
    os.close(opened)
