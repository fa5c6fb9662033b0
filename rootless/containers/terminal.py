"""The standard streams of a container's command: a terminal of its own, or what it was given.

Everything goes by descriptor: no path of the container is trusted to be the
terminal (CVE-2025-52565). Called inside the container, by ``init`` and ``join``.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Final

from rootless.errors import RlError
from rootless.kernel import mounts, syscalls

_PTMX: Final = os.makedev(5, 2)
_TIOCSCTTY: Final = 0x540E
_TIOCGPTPEER: Final = 0x5441
_TIOCSPTLCK: Final = 0x40045431


def open_terminal(root: int) -> list[int]:
    """Make a terminal in the container's devpts, our standard streams its slave.

    Returns [master].
    """
    # Not through /dev/ptmx, which is a link.
    flags = os.O_RDWR | os.O_NOCTTY
    master = mounts.open_in_root(root, "/dev/pts/ptmx", flags)
    if os.fstat(master).st_rdev != _PTMX:
        # A file system of the container's own could answer what it likes, a number of ours too.
        raise RlError("cannot make a terminal: the container has changed its /dev/pts/ptmx")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
    for fd in range(3):
        os.dup2(slave, fd)
    os.close(slave)
    fcntl.ioctl(0, _TIOCSCTTY, 0)
    return [master]


def bind_console(root: int) -> None:
    """Let /dev/console be our terminal, too."""
    console = mounts.make_target(root, "/dev/console", directory=False)
    tree = syscalls.open_tree("", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH, directory=0)
    mounts.attach(tree, console, mounts.parse_options(()))
    os.close(console)


def take(stdio: Sequence[int]) -> list[int]:
    """Make these our standard streams; return no master."""
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
    return []
