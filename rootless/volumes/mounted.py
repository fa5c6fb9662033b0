"""The volumes with a limit that one container has: their mounts, as long as it runs.

Asks rl-holder for the server of each, and the server for a mount that is mounted nowhere yet. Owns
the channels, whose end means the server's. Called by the supervisor, and by `rl cp` for a container
that does not run.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping
from typing import Final

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.holder.client import Holder
from rootless.kernel.polling import wait

# A server may be about to end, with its last container or by a kill, when we come.
_TRIES: Final = 100
_PAUSE_SECONDS: Final = 0.05


class Mounted:
    """The mounts of some volumes, each by its target: ``trees`` are descriptors."""

    def __init__(self, holder: Holder, directories: Mapping[str, str]) -> None:
        """Have those in ``directories``, by their targets; RlError where one cannot be served."""
        self.trees: dict[str, int] = {}
        self._channels: dict[str, Channel] = {}
        try:
            for target, directory in directories.items():
                name = os.path.basename(directory)
                self.trees[target] = self._again(name) or self._open(holder, directory)
        except BaseException:
            self.close()
            raise

    def _again(self, name: str) -> int | None:
        """Return one more mount of a volume that is on another target, too."""
        channel = self._channels.get(name)
        return _ask(channel) if channel is not None else None

    def _open(self, holder: Holder, directory: str) -> int:
        for _ in range(_TRIES):
            _, fds = holder.ask("volume", {"volume": directory})
            channel = Channel(socket.socket(fileno=fds[0]))
            if (tree := _ask(channel)) is not None:
                self._channels[os.path.basename(directory)] = channel
                return tree
            channel.close()
            time.sleep(_PAUSE_SECONDS)
        raise _lost(os.path.basename(directory))

    def watched(self) -> dict[int, int]:
        """Return what to poll for, to learn of a server's end."""
        return {channel.fileno(): select.POLLIN for channel in self._channels.values()}

    def check(self) -> None:
        """Raise RlError if a server has ended."""
        for name, channel in self._channels.items():
            if wait({channel.fileno(): select.POLLIN}, 0):
                raise _lost(name)

    def close_trees(self) -> None:
        """Close what whoever mounts them has by now."""
        for tree in self.trees.values():
            os.close(tree)
        self.trees.clear()

    def close(self) -> None:
        """Have them no longer."""
        self.close_trees()
        for channel in self._channels.values():
            channel.close()


def _ask(channel: Channel) -> int | None:
    """Return a mount, None from a server that has ended; RlError says why there is none."""
    channel.send({"tree": True})
    answer, trees = channel.receive()
    if answer is not None and "error" in answer:
        raise RlError(str(answer["error"]))
    return trees[0] if trees else None


def _lost(name: str) -> RlError:
    return RlError(f"the server of volume {name} ended unexpectedly (see its server.log)")
