"""The process that serves a container's file system.

It lives in a user namespace with the user's own maps (the container's, if it has
the same), but in the host's mount and PID namespaces: it sees the layers, and
nothing inside the container sees it. It
also guards the container: when the supervisor dies, it kills the container's
PID 1 and goes. Forked by the supervisor, which has loaded all that it needs.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
from typing import TYPE_CHECKING, Any, Final, Self

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.kernel import process, syscalls, userns
from rootless.kernel.polling import wait
from rootless.kernel.userns import Maps
from rootless.values import as_dict

if TYPE_CHECKING:
    from rootless.quota import Disk

# A server whose container is gone has nothing left to do but to notice it.
_GRACE_SECONDS: Final = 10.0


class Server:
    """The server of one container, from its start to its end, which is that of the with block.

    It serves when it is told what.
    """

    def __init__(self) -> None:
        # Loaded before the fork, and then untouched by looking for garbage: one copy for both.
        from fuse_overlay import connection, overlay  # noqa: F401

        gc.freeze()
        gc.set_threshold(10_000)
        self._channel, theirs = Channel.pair()
        self._child = process.fork(lambda: _main(theirs), keep=(theirs.fileno(),))
        theirs.close()
        self._log = ""

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._child.pid

    def serve(
        self,
        lower: list[str],
        upper: str,
        work: str,
        log: str,
        disk: Disk,
        *,
        pidfd: int,
        fuse: int,
        maps: Maps | None = None,
        owners: dict[str, Any] | None = None,
        runs: bool = True,
    ) -> None:
        """Serve these directories (``lower`` from the top down) on the mounted ``fuse``.

        ``upper`` holds no more than ``disk`` allows.

        ``pidfd`` is that of the container's PID 1, which the server kills if we die, and whose
        user namespace it joins; with ``maps`` it makes one of its own. ``owners`` are the
        arguments of Ownership: how the stored ids are shown. Of a container that ``runs``, the
        time of the log's last change tells when it ended, whoever else could not.
        """
        self._log = log
        directories = {"lower": lower, "upper": upper, "work": work, "log": log}
        ids = {"apart": maps is not None, "owners": owners, "runs": runs}
        self._channel.send({**directories, **as_dict(disk), **ids}, pidfd, fuse)
        if maps is not None:
            if self._channel.receive()[0] is None:
                self.check_after_loss()
                raise RlError("the container's file system server ended unexpectedly")
            userns.write_maps(self._child.pid, maps)
            self._channel.send({"go": True})

    def limit(self, limits: dict[str, Any], done: int) -> None:
        """Allow as much as the Disk ``limits``; the server writes to ``done`` when it does.

        It never does where it began without a limit.
        """
        self._channel.send({"limit": limits}, done)

    def watched(self) -> dict[int, int]:
        """Return what to poll for, to learn of the server's end."""
        return {self._child.pidfd: select.POLLIN} if self._child.running else {}

    def check(self, seconds: float = 0) -> None:
        """Raise RlError if the server fails within ``seconds``.

        That it ended is right once its mount is gone.
        """
        if self._child.running and wait(self.watched(), seconds):
            status = self._child.wait()
            if status:
                raise RlError(f"the container's file system server failed: {self._reason(status)}")

    def check_after_loss(self) -> None:
        """Raise RlError if the server failed, when its mount answered that it is not connected."""
        self.check(_GRACE_SECONDS)

    def _reason(self, status: int) -> str:
        if status > 128:
            return f"it was killed by signal {status - 128}"
        try:
            with open(self._log, errors="replace") as file:
                lines = file.read().split("\n")
        except OSError:
            lines = []
        return next((line for line in reversed(lines) if line.strip()), f"status {status}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # By now nothing uses its mount any more; without a mount there is nothing to finish.
        self._channel.close()
        if self._child.running and (not self._log or not wait(self.watched(), _GRACE_SECONDS)):
            self._child.kill()
        self._child.wait()


def _main(channel: Channel) -> int:
    syscalls.set_process_name("rl-overlay")
    # Its end is its mount's, or the supervisor's; whoever wants the container to
    # stop tells the supervisor, and a signal for all of us must not come first here.
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from fuse_overlay.connection import Connection
    from fuse_overlay.overlay import Overlay

    directories, fds = channel.receive()
    if directories is None:
        return 0
    pidfd, fuse = fds
    try:
        _redirect(directories["log"])
    except FileNotFoundError:
        # The container was removed while it started.
        return 1
    if directories["apart"]:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        channel.send({"apart": True})
        if channel.receive()[0] is None:
            return 1
    else:
        syscalls.setns(pidfd, syscalls.CLONE_NEWUSER)
    syscalls.become_root()
    # We are in the container's user namespace: if it can see us, it still cannot look into us.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    owners = None
    if directories["owners"]:
        from fuse_overlay.ownership import Ownership

        owners = Ownership(**directories["owners"])
    try:
        overlay = Overlay(
            directories["lower"],
            directories["upper"],
            directories["work"],
            size=directories["size"] or None,
            inodes=directories["inodes"] or None,
            owners=owners,
        )
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        os.write(2, b"rl cp or rl export reads or writes its files just now, try again\n")
        return 1
    connection = Connection(fuse, overlay)
    connection.handshake()

    def hear() -> bool:
        message, fds = channel.receive()
        if message is None:
            process.send_signal(pidfd, signal.SIGKILL)
            return False
        if overlay.limited:
            limits = message["limit"]
            overlay.limit(limits["size"] or None, limits["inodes"] or None)
            with contextlib.suppress(BrokenPipeError):
                os.write(fds[0], b"1")
        os.close(fds[0])
        return True

    connection.serve({channel.fileno(): hear})
    if directories["runs"]:
        with contextlib.suppress(OSError):
            os.utime(2)
    return 0


def _redirect(log: str) -> None:
    """Turn our standard streams, which are the user's until now, to the log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    for fd, path in ((0, os.devnull), (1, os.devnull), (2, log)):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
