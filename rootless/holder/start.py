"""Starting rl-holder so that it outlives whoever started it: their terminal, login and cgroup.

Called by ``client`` under the holder's lock, so that there are never two.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.holder import cgroup, lock
from rootless.kernel import process, syscalls, userns

_LOG: Final = "holder.log"


def start(root: str, beside: str) -> None:
    """Start the holder of a store; it listens when this returns. RlError where it cannot be.

    ``beside`` is the cgroup of the container that needs it, "" for one without.
    """
    ours, theirs = Channel.pair()
    starter = process.fork(lambda: _starter(root, beside, theirs), keep=[theirs.fileno()])
    theirs.close()
    message, _ = ours.receive()
    ours.close()
    starter.wait()
    if message is None or "error" in message:
        raise RlError(message["error"] if message else "rl-holder ended unexpectedly")


def _starter(root: str, beside: str, channel: Channel) -> int:
    """Start it as nobody's child: whoever started it may go on for long, or be gone."""
    os.setsid()
    os.chdir("/")
    mapped, go = Channel.pair()
    flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS
    kept = [channel.fileno(), mapped.fileno()]
    try:
        child = process.fork(lambda: _holder(root, channel, mapped), flags, kept)
        mapped.close()
        userns.write_maps(child.pid, userns.storage_maps())
        with contextlib.suppress(OSError, RlError):
            # Where there is none to be had it stays where we are.
            cgroup.move(child.pid, beside)
        go.send({"go": True})
    except OSError as error:
        channel.send({"error": str(userns.creation_error(error))})
    except RlError as error:
        channel.send({"error": str(error)})
    return 0


def _holder(root: str, channel: Channel, mapped: Channel) -> int:
    if mapped.receive()[0] is None:
        return 1
    mapped.close()
    syscalls.become_root()
    try:
        _redirect(f"{root}/{_LOG}")
        listener = lock.listen(root)
    except OSError as error:
        channel.send({"error": f"rl-holder cannot listen in {root}: {error.strerror}"})
        return 1
    channel.send({"listening": True})
    channel.close()
    from rootless.holder.server import main

    return main(root, listener)


def _redirect(log: str) -> None:
    """Turn our standard streams, which are a user's until now, to the log."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    for fd, path in ((0, os.devnull), (1, log), (2, log)):
        opened = os.open(path, flags if path == log else os.O_RDWR, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
