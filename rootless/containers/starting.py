"""A container between the clone of PID 1 and the command: who is waited for, and whose end ends it.

Waits for what PID 1 says while the overlay server, the network and whoever
started it are watched. Called by the supervisor.
"""

from __future__ import annotations

import errno
import select
from typing import TYPE_CHECKING, Any

from rootless.channel import Channel
from rootless.containers.console import Console
from rootless.containers.overlay import Server
from rootless.containers.sharing import Sharing
from rootless.errors import RlError
from rootless.kernel import process
from rootless.kernel.polling import wait
from rootless.networks.helper import Helper

if TYPE_CHECKING:
    from rootless.containers.connected import Connected


class Start:
    """PID 1, what serves it, and what they tell until the command has been executed."""

    def __init__(
        self,
        child: process.Child,
        channel: Channel,
        server: Server,
        network: Helper | Connected,
        console: Console,
        sharing: Sharing,
    ) -> None:
        self.child = child
        self.channel = channel
        self.server = server
        self.network = network
        self.sharing = sharing
        self._console = console
        self.agreed = False

    def expect(self, what: str) -> list[int]:
        """Return the descriptors of PID 1's message ``what``; RlError if it does not come."""
        while self.channel.fileno() not in self._wait():
            pass
        message, fds = self.channel.receive()
        if message is None or what not in message:
            raise self.failure(message)
        return fds

    def expect_network(self) -> None:
        """Return when the network is there."""
        while not self.network.ready:
            if self.channel.fileno() in self._wait():
                raise self.failure(self.channel.receive()[0])

    def watched(self) -> dict[int, int]:
        """Return what to poll for, to learn of the end of what serves PID 1."""
        return self.server.watched() | self.network.watched() | self.sharing.watched()

    def check(self) -> None:
        """Raise RlError if something that serves PID 1 has failed."""
        self.server.check()
        self.sharing.check()

    def _wait(self) -> set[int]:
        """Wait until PID 1 says something or something fails, which is raised."""
        interests = {self.channel.fileno(): select.POLLIN} | self.watched()
        if not self.agreed:
            interests[self._console.owner_channel()] = select.POLLIN
        ready = wait(interests)
        self.check()
        if self.channel.fileno() not in ready:
            self.network.advance()
        if not self.agreed and self._console.owner_channel() in ready:
            # The owner says nothing before it is asked: this is its end.
            raise RlError("it was interrupted before it started")
        return ready

    def failure(self, message: dict[str, Any] | None) -> RlError:
        """Return PID 1's error; if the server failed first, raise that, which is the cause."""
        if message is not None and message.get("errno") == errno.ENOTCONN:
            self.sharing.check()
            self.server.check_after_loss()
        self.check()
        if message is None:
            return RlError(f"the container could not be set up (status {self.child.wait()})")
        return RlError(str(message["error"]), int(message["exit_code"]))
