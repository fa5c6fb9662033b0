"""Messages between processes of ours: a supervisor and those that it starts, rl-holder and its own.

Owns the format: one JSON object and some descriptors a message, over a
SOCK_SEQPACKET pair, so that a message is whole or absent. The other end's
death is an end of file, which is how each notices the other's. Knows no message.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from typing import Any, Final

# Room for the paths of as many layers as an image can have.
_LARGEST: Final = 1 << 17
_MOST_FDS: Final = 4


class Channel:
    """One end of a pair; closed on exec."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return two connected ends."""
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    def fileno(self) -> int:
        """Return the descriptor, to poll or to keep over a fork."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], *fds: int) -> None:
        """Send a message; an end that nobody listens to any more is no error."""
        data = json.dumps(message).encode()[:_LARGEST]
        try:
            socket.send_fds(self._socket, [data], fds)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def offer(self, message: dict[str, Any], *fds: int) -> bool:
        """Send a message only if that needs no waiting; tell whether it was sent."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            # Not by send_fds, which forgets its flags.
            self._socket.sendmsg([json.dumps(message).encode()], rights, socket.MSG_DONTWAIT)
        except OSError:  # no room, too many descriptors under way, or nobody there
            return False
        return True

    def limit_wait(self, seconds: float) -> None:
        """Let ``send`` raise BlockingIOError if the other end does not read for so long."""
        whole, fraction = divmod(seconds, 1)
        value = struct.pack("ll", int(whole), int(fraction * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """Wait for a message; (None, []) when the other end is closed."""
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, _MOST_FDS)
        except ConnectionResetError:
            # It has not read all of ours, and the kernel says so once, before its own last words.
            data, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, _MOST_FDS)
        return (json.loads(data), list(fds)) if data else (None, [])

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
