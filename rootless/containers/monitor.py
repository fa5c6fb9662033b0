"""When a running container's health is checked: the supervisor's timer.

Forks a process for each check, never two at once, and takes its result. Costs
nothing between two checks, and nothing at all where there is no check.
"""

from __future__ import annotations

import contextlib
import select
import time

from rootless.channel import Channel
from rootless.containers import healthstate, probe
from rootless.containers.health import Check
from rootless.containers.store import Container
from rootless.kernel import process


class Monitor:
    """The checks of one run of a container."""

    def __init__(self, container: Container, check: Check) -> None:
        self._container = container
        self._check = check
        self._next = 0.0
        self._status = "starting"
        self._began = time.monotonic()
        self._set_timer()
        self._child: process.Child | None = None
        self._channel: Channel | None = None

    def seconds(self) -> float | None:
        """Return how long to wait at most, None where only a result is waited for."""
        return None if self._child else max(self._next - time.monotonic(), 0)

    def interests(self) -> dict[int, int]:
        """Return what to poll for: descriptor -> events."""
        return {self._channel.fileno(): select.POLLIN} if self._channel else {}

    def advance(self, ready: set[int]) -> None:
        """Begin a check when it is time, and take the result of one that has ended."""
        # Neither a full disk, nor too many processes, nor a defect of ours ends a container.
        with contextlib.suppress(Exception):
            if self._channel is None:
                if time.monotonic() >= self._next:
                    self._set_timer()
                    if not self._container.paused:
                        self._begin()
            elif self._channel.fileno() in ready:
                self._take_result(self._channel)

    def _take_result(self, channel: Channel) -> None:
        try:
            result, _ = channel.receive()
            if result is None:
                result = probe.failed("the process that carried it out ended")
            since = time.monotonic() - self._began
            self._status = healthstate.add(self._container, self._check, result, since)
        finally:
            self.close()
            self._set_timer()

    def _set_timer(self) -> None:
        moment = time.monotonic()
        self._next = moment + self._check.pause(self._status, moment - self._began)

    def _begin(self) -> None:
        channel, theirs = Channel.pair()
        container, check = self._container, self._check
        try:
            self._child = process.fork(
                lambda: probe.main(container, check, theirs), keep=[theirs.fileno()]
            )
            self._channel = channel
        finally:
            theirs.close()

    def close(self) -> None:
        """End a check that has not ended."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
