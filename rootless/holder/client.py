"""A supervisor's connection to rl-holder, which is started if it does not run.

What was asked for is ours until the connection ends, which is how the holder notices our end
and we notice its own. Called by the supervisor; services have their own callers of ``ask``.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any, Final

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.holder import lock
from rootless.kernel.nested import Outer
from rootless.kernel.polling import wait
from rootless.kernel.userns import IdMap, Maps

# A machine may be slow, a process that was stopped never answers.
_PATIENCE_SECONDS: Final = 120.0
# It may be killed while we come, and has to be started before it is found.
_TRIES: Final = 6


class Holder:
    """One connection; its end takes back all that was asked for by it."""

    def __init__(self, root: Path, beside: str = "") -> None:
        """Connect to the holder of a store. ``beside`` is the cgroup of the container, if any."""
        self._channel, self.outer = _connect(str(root), beside)
        """What containers are nested in; the descriptor is ours."""

    def ask(
        self, service: str, message: dict[str, Any] | None = None, *fds: int
    ) -> tuple[dict[str, Any], list[int]]:
        """Return a service's answer, and its descriptors, which are the caller's from now on.

        RlError where it refuses, or is gone.
        """
        answer, given = _ask(self._channel, {**(message or {}), "service": service}, *fds)
        if answer is None:
            raise _gone()
        if "error" in answer:
            raise RlError(answer["error"])
        return answer, given

    def watched(self) -> dict[int, int]:
        """Return what to poll for, to learn of its end: it says nothing unless it is asked."""
        return {self._channel.fileno(): select.POLLIN}

    def check(self) -> None:
        """Raise RlError if it has ended."""
        if wait(self.watched(), 0):
            raise _gone()

    def close(self) -> None:
        """Give back all that is ours."""
        if self._channel.fileno() >= 0:
            self._channel.close()
            os.close(self.outer.userns)


def _ask(
    channel: Channel, message: dict[str, Any], *fds: int
) -> tuple[dict[str, Any] | None, list[int]]:
    channel.send(message, *fds)
    if not wait({channel.fileno(): select.POLLIN}, _PATIENCE_SECONDS):
        raise RlError("rl-holder does not answer (it may have been stopped)")
    return channel.receive()


def _gone() -> RlError:
    return RlError("rl-holder ended, which held what the container shares with others")


def _connect(root: str, beside: str) -> tuple[Channel, Outer]:
    """Return a connection, and the holder's user namespace."""
    with lock.held(root):
        for _ in range(_TRIES):
            if (end := lock.connect(root)) is None:
                from rootless.holder.start import start

                start(root, beside)
                continue
            channel = Channel(end)
            answer, fds = _ask(channel, {"service": "holder"})
            if answer is not None:
                maps = Maps(_read_map(answer["uid_map"]), _read_map(answer["gid_map"]))
                return channel, Outer(fds[0], maps)
            # One that was killed a moment ago had let us in.
            channel.close()
    raise RlError("rl-holder ends as soon as it has started (see holder.log in the store)")


def _read_map(text: str) -> tuple[IdMap, ...]:
    return tuple(IdMap(*map(int, line.split())) for line in text.splitlines())
