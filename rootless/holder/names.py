"""The process rl-dns, which answers the containers of all user networks of a store.

Owns its life: it is there while a network is that wants names, is told what there is, and is
started and told anew if it dies, since queries come from containers. It has no capability. The
sockets it listens on are the holder's. Called by the holder's ``network``.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Any, Final

from rootless.channel import Channel
from rootless.kernel import capabilities, process, syscalls

# What it may take, whatever is asked of it.
_MEMORY: Final = 1 << 29
# One that reads nothing for so long is none.
_PATIENCE_SECONDS: Final = 10.0
# Deaths one after the other are not to keep a processor busy.
_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_LONG_LIFE_SECONDS: Final = 60.0
_FDS_OF_A_MESSAGE: Final = 4


class NameServer:
    """What it is told, and the process while there is one."""

    def __init__(self) -> None:
        self._networks: dict[str, tuple[dict[str, Any], Sequence[int]]] = {}
        self._endpoints: dict[str, dict[str, Any]] = {}
        self._child: process.Child | None = None
        self._channel: Channel | None = None
        self._began = 0.0
        self._pause = 0.0

    def add_network(self, network: str, listening: Sequence[int], *, internal: bool) -> None:
        """Answer on these sockets, which stay ours; questions leave no ``internal`` network."""
        self._networks[network] = ({"network": network, "internal": internal}, listening)
        self._tell_network(network)

    def remove_network(self, network: str) -> None:
        """Forget a network, and forget its sockets."""
        if self._networks.pop(network, None) is None:
            return
        if not self._networks:
            self._end()
        else:
            self._tell({"network": network, "gone": True})

    def add_endpoint(self, key: str, endpoint: dict[str, Any]) -> None:
        """Know one container's names and addresses on a network."""
        if endpoint["network"] in self._networks:
            self._endpoints[key] = {"endpoint": key, **endpoint}
            self._tell(self._endpoints[key])

    def remove_endpoint(self, key: str) -> None:
        """Forget them."""
        if self._endpoints.pop(key, None) is not None:
            self._tell({"endpoint": key, "gone": True})

    def watched(self) -> list[int]:
        """Return what to poll for: its end."""
        return [self._child.pidfd] if self._child is not None else []

    def advance(self) -> None:
        """Start it anew: it has ended."""
        self._end()
        lived = time.monotonic() - self._began
        self._pause = 0.0 if lived > _LONG_LIFE_SECONDS else self._pause * 2 or _PAUSE_SECONDS
        self._start()

    def _tell_network(self, network: str) -> None:
        message, listening = self._networks[network]
        for first in range(0, len(listening), _FDS_OF_A_MESSAGE):
            self._tell(message, *listening[first : first + _FDS_OF_A_MESSAGE])

    def _tell(self, message: dict[str, Any], *fds: int) -> None:
        if self._channel is None:
            self._start()
            return
        try:
            self._channel.send(message, *fds)
        except OSError:
            # It does not read; its end is noticed, and the next one told all.
            if self._child is not None:
                self._child.kill()

    def _start(self) -> None:
        """Start it and tell it all that there is."""
        ours, theirs = Channel.pair()
        pause = min(self._pause, _LONGEST_PAUSE_SECONDS)
        self._child = process.fork(lambda: _main(theirs, pause), keep=[theirs.fileno()])
        theirs.close()
        ours.limit_wait(_PATIENCE_SECONDS)
        self._channel = ours
        self._began = time.monotonic()
        for network in self._networks:
            self._tell_network(network)
        for endpoint in self._endpoints.values():
            self._tell(endpoint)

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def _main(channel: Channel, pause: float) -> int:
    syscalls.set_process_name("rl-dns")
    process.die_with_parent()
    capabilities.limit_to(())
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    time.sleep(pause)
    from rootless.nameserver.server import serve

    serve(channel)
    return 0
