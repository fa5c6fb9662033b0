"""The process that serves a container's file system.

It lives in the container's user namespace, but in the host's mount and PID
namespaces: it sees the layers, and nothing inside the container sees it. It
also guards the container: when the supervisor dies, it kills the container's
PID 1 and goes. Started by the supervisor, early, since loading it takes longer
than all else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from rootless.containers.channel import Channel
from rootless.kernel import process, syscalls, userns


@dataclass(frozen=True, slots=True)
class Directories:
    """Host directories: ``lower`` from the top layer down, and the writable pair."""

    lower: Sequence[str]
    upper: str
    work: str
    log: str


def start(directories: Directories) -> tuple[process.Child, Channel]:
    """Start the server; it serves once it is sent (pidfd of PID 1, mounted /dev/fuse)."""
    ours, theirs = Channel.pair()
    child = process.fork(lambda: _main(directories, theirs), keep=(theirs.fileno(),))
    theirs.close()
    return child, ours


def _main(directories: Directories, channel: Channel) -> int:
    syscalls.set_process_name("rl-overlay")
    # Its end is its mount's, or the supervisor's; whoever wants the container to
    # stop tells the supervisor, and a signal for all of us must not come first here.
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log = os.open(directories.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for fd, source in ((0, null), (1, null), (2, log)):
        os.dup2(source, fd)
    import trio

    from fuse_overlay.overlay import Overlay
    from fuse_overlay.server import serve

    _, fds = channel.receive()
    if not fds:
        return 1
    pidfd, fuse = fds
    syscalls.setns(pidfd, syscalls.CLONE_NEWUSER)
    userns.become_root()
    try:
        overlay = Overlay(directories.lower, directories.upper, directories.work)
    except OSError as error:
        channel.send({"error": f"cannot serve the container's file system: {error}"})
        return 1

    async def serve_guarded() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_guard, channel, pidfd)
            await serve(overlay, fuse)
            nursery.cancel_scope.cancel()

    trio.run(serve_guarded)
    return 0


async def _guard(channel: Channel, pidfd: int) -> None:
    import trio

    await trio.lowlevel.wait_readable(channel.fileno())
    process.send_signal(pidfd, signal.SIGKILL)
