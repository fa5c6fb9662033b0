"""Where the holder of a store is reached, and the lock under which it appears, is found, and goes.

Owns ROOT/holder.lock and ROOT/holder.sock. A socket that refuses is one whose holder was killed:
who holds the lock removes it. Called by ``client`` and ``server``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_LOCK: Final = "holder.lock"
_SOCKET: Final = "holder.sock"
_BACKLOG: Final = 1024


def _open(root: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(f"{root}/{_LOCK}", flags, 0o600)


@contextmanager
def held(root: str) -> Iterator[int]:
    """Hold the lock, however long that takes; gives its descriptor."""
    fd = _open(root)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def tried(root: str) -> Iterator[bool]:
    """Hold the lock if nobody else does; gives whether that is so, as when the store is gone."""
    try:
        fd = _open(root)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


@contextmanager
def _address(root: str) -> Iterator[str]:
    """Give the socket's path in a form short enough for any directory, unix(7)."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{_SOCKET}"
    finally:
        os.close(directory)


def listen(root: str) -> socket.socket:
    """Return a socket that listens there, in place of a dead one."""
    remove_address(root)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _address(root) as address:
        listener.bind(address)
    listener.listen(_BACKLOG)
    return listener


def connect(root: str) -> socket.socket | None:
    """Return a connection to whoever listens there, None if nobody does."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _address(root) as address:
            end.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        end.close()
        return None
    return end


def remove_address(root: str) -> None:
    """Let nobody come there any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{root}/{_SOCKET}")
