"""Starting a container: a supervisor is forked, and told which container is its own.

The side of the command that was typed. Called by run and start; from the
moment that the container runs, the command is an onlooker like any other.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from rootless.containers.channel import Channel
from rootless.containers.streams import wait
from rootless.kernel import process, syscalls

# For a supervisor to clear up what it had begun, or what had ended.
_PATIENCE_SECONDS: Final = 10.0


class Launch:
    """A supervisor that is being started; it begins to load what it needs at once."""

    _prepared: ClassVar[Launch | None] = None

    @classmethod
    def prepare(cls) -> None:
        """Start a supervisor for the first container that this process is going to start.

        If there is none after all, it ends with us.
        """
        cls._prepared = cls()

    @classmethod
    def next(cls) -> Launch:
        """Return the prepared one, or else a new one."""
        prepared, cls._prepared = cls._prepared, None
        return prepared or cls()

    def __init__(self) -> None:
        self.channel, theirs = Channel.pair()
        self.child = process.fork(lambda: _main(theirs), keep=(theirs.fileno(),))
        theirs.close()

    def supervise(
        self, root: Path, container_id: str, layers: Sequence[Path], streams: dict[str, int]
    ) -> None:
        """Hand over a container with the descriptors (by name) that are its streams for now."""
        message = {
            "root": str(root),
            "container": container_id,
            "layers": [str(layer) for layer in layers],
            "attach": list(streams),
        }
        self.channel.send(message, *streams.values())

    def end(self) -> None:
        """Wait until the supervisor has ended; one that has not yet started anything does so.

        Not for ever: an interrupt may have come at the moment when the container had started.
        """
        self.channel.close()
        if self.child.running and wait({self.child.pidfd: select.POLLIN}, _PATIENCE_SECONDS):
            self.child.wait()


def _main(channel: Channel) -> int:
    from rootless.containers.overlay import Server

    syscalls.set_process_name("rl-supervisor")
    os.setsid()
    os.chdir("/")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    server = Server()
    # Imported while the server loads.
    from rootless.containers.console import Onlooker
    from rootless.containers.store import ContainerStore
    from rootless.containers.supervisor import supervise

    message, fds = channel.receive()
    if message is None:
        with server:
            return 0
    owner = Onlooker(channel, owner=True)
    owner.take(message["attach"], fds)
    containers = ContainerStore(Path(message["root"]))
    container = containers.by_id(message["container"])
    supervise(containers, container, [Path(layer) for layer in message["layers"]], server, owner)
    return 0
