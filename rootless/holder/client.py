"""A supervisor's connection to rl-holder, which is started if it does not run.

What was asked for is ours until the connection ends, which is how the holder notices our end
and we notice its own. Called by the supervisor; services have their own callers of ``ask``.
"""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path
from typing import Any, Final

from rootless.containers.channel import Channel
from rootless.containers.streams import wait
from rootless.errors import RlError
from rootless.holder import lock
from rootless.kernel.nested import Outer
from rootless.kernel.userns import storage_maps

# A machine may be slow, a process that was stopped never answers.
_PATIENCE_SECONDS: Final = 120.0
# It may be killed while we come.
_TRIES: Final = 3


class Holder:
    """One connection; its end takes back all that was asked for by it."""

    def __init__(self, root: Path, beside: str = "") -> None:
        """Connect to the holder of a store. ``beside`` is the cgroup of the container, if any."""
        self._channel = _connect(str(root), beside)
        try:
            _, fds = self.ask("holder")
        except RlError:
            self._channel.close()
            raise
        self.outer = Outer(fds[0], storage_maps())
        """What containers are nested in; the descriptor is ours."""

    def ask(
        self, service: str, message: dict[str, Any] | None = None, *fds: int
    ) -> tuple[dict[str, Any], list[int]]:
        """Return a service's answer, and its descriptors, which are the caller's from now on.

        RlError where it refuses, or is gone.
        """
        self._channel.send({**(message or {}), "service": service}, *fds)
        if not wait({self._channel.fileno(): select.POLLIN}, _PATIENCE_SECONDS):
            raise RlError("rl-holder does not answer (it may have been stopped)")
        answer, given = self._channel.receive()
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
        self._channel.close()
        with contextlib.suppress(OSError):
            os.close(self.outer.userns)


def _gone() -> RlError:
    return RlError("rl-holder ended, which held what the container shares with others")


def _connect(root: str, beside: str) -> Channel:
    with lock.held(root):
        for _ in range(_TRIES):
            if (end := lock.connect(root)) is not None:
                return Channel(end)
            from rootless.holder.start import start

            start(root, beside)
    raise RlError("rl-holder ends as soon as it has started (see holder.log in the store)")
