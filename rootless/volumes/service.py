"""What rl-holder does for volumes with a limit: it starts the server of each that is in use.

Owns which server a volume has. Knows nothing of what it serves, and takes nothing back: a server
and its clients hear of each other's end by the channel that is made for them here.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.kernel import process
from rootless.volumes.store import DATA

_Key = tuple[int, int]


class _Server(NamedTuple):
    child: process.Child
    control: Channel


class Volumes:
    """The servers that run, by the very directory that each serves."""

    def __init__(self) -> None:
        self._servers: dict[_Key, _Server] = {}

    def serve(
        self, client: int, message: dict[str, Any], fds: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """Return a channel to the server of the volume in the directory ``volume``."""
        del client, fds
        directory = str(message["volume"])
        try:
            found = os.stat(f"{directory}/{DATA}", follow_symlinks=False)
        except OSError as error:
            name = os.path.basename(directory)
            raise RlError(f"cannot serve volume {name}: {error.strerror}") from None
        server = self._server((found.st_dev, found.st_ino), directory)
        ours, theirs = Channel.pair()
        # One that is just dying does not take it: the client sees that, and asks once more.
        server.control.offer({"client": True}, theirs.fileno())
        theirs.close()
        end = os.dup(ours.fileno())
        ours.close()
        return {}, [end]

    def left(self, client: int) -> None:
        """Do nothing: the servers notice it themselves."""

    def watched(self) -> list[int]:
        """Return what tells of the servers' ends."""
        return [server.child.pidfd for server in self._servers.values()]

    def advance(self) -> None:
        """Forget the servers that have ended."""
        for key, (child, control) in list(self._servers.items()):
            if os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                child.wait()
                control.close()
                del self._servers[key]

    def _server(self, key: _Key, directory: str) -> _Server:
        self.advance()
        if key not in self._servers:
            from rootless.volumes import server

            control, theirs = Channel.pair()
            child = process.fork(lambda: server.main(directory, theirs), keep=[theirs.fileno()])
            theirs.close()
            self._servers[key] = _Server(child, control)
        return self._servers[key]
