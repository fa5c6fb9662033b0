"""Starting a container: a supervisor is forked, and told which container is its own.

The side of the command that was typed. Called by run and start; from the
moment that the container runs, the command is an onlooker like any other.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from rootless.channel import Channel
from rootless.errors import ImageNotFound, RlError
from rootless.kernel import process, syscalls

if TYPE_CHECKING:
    from rootless.containers.request import Request

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

    def create(self, root: Path, request: Request) -> tuple[str, list[str]]:
        """Have the supervisor make the container that it is going to run; return (ID, warnings).

        Raises ImageNotFound, after which it can be asked again; RlError as ``create`` does.
        """
        import pickle

        memory = os.memfd_create("request")
        with open(memory, "wb", closefd=False) as file:
            pickle.dump(request, file)
            file.seek(0)
        self.channel.send({"root": str(root), "create": True}, memory)
        os.close(memory)
        message, _ = self.channel.receive()
        if message is None:
            raise RlError("the container's supervisor ended unexpectedly")
        if "missing" in message:
            raise ImageNotFound(message["missing"])
        if "error" in message:
            raise RlError(message["error"], message["exit_code"])
        return message["created"], message["warnings"]

    def supervise(self, root: Path, container_id: str, streams: dict[str, int]) -> None:
        """Hand over a container with the descriptors (by name) that are its streams for now."""
        message = {"root": str(root), "container": container_id, "attach": list(streams)}
        self.channel.send(message, *streams.values())

    def end(self) -> None:
        """Wait until the supervisor has ended; one that has not yet started anything does so.

        Not for ever: an interrupt may have come at the moment when the container had started.
        """
        from rootless.kernel.polling import wait

        self.channel.close()
        if self.child.running and wait({self.child.pidfd: select.POLLIN}, _PATIENCE_SECONDS):
            self.child.wait()


def _main(channel: Channel) -> int:
    syscalls.set_process_name("rl-supervisor")
    os.setsid()
    os.chdir("/")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    # Imported while the command loads that is to tell us more.
    import pickle

    import fuse_overlay.connection
    import fuse_overlay.overlay  # noqa: F401 - for the server
    from rootless.containers.console import Onlooker
    from rootless.containers.create import create, warnings
    from rootless.containers.handshake import failures_sent
    from rootless.containers.overlay import Server
    from rootless.containers.remove import remove_leftovers
    from rootless.containers.state import Process
    from rootless.containers.store import ContainerStore
    from rootless.containers.supervisor import supervise
    from rootless.images.store import ImageStore

    message, fds = channel.receive()
    while message is not None and "create" in message:
        with failures_sent(channel), open(fds[0], "rb") as memory:
            root, request = Path(message["root"]), pickle.load(memory)
            try:
                image = ImageStore(root).find_whole(request.image)
                container = create(root, request, image, Process.of(os.getpid()))
                told = warnings(root, request, image)
                channel.send({"created": container.id, "warnings": told})
            except ImageNotFound as error:
                channel.send({"missing": str(error)})
        message, fds = channel.receive()
    if message is None:
        return 0
    root = Path(message["root"])
    owner = Onlooker(channel, owner=True)
    owner.take(message["attach"], fds)
    containers, images = ContainerStore(root), ImageStore(root)
    try:
        container = containers.by_id(message["container"])
    except RlError as error:
        # Somebody has removed it.
        owner.part(error.exit_code, str(error))
        return error.exit_code
    layers = [images.layer_path(layer) for layer in container.extra.layers]
    supervise(containers, container, layers, Server(), owner)
    with contextlib.suppress(RlError):
        remove_leftovers(root)
    return 0
