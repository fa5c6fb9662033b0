"""The devices of the host that a privileged container gets.

Called by create. Looks at /dev and opens nothing: to open a device may do something.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

# The container has file systems of its own there, or links to them.
_OWN_DIRECTORIES: Final = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd")
# What every container has, and the terminals of the host: none may be taken over from inside.
_OWN: Final = ("null", "zero", "full", "random", "urandom", "console", "ptmx")


def host_devices() -> list[str]:
    """Return the paths of the host's device nodes that this user may open, as Podman does."""
    return sorted(_below("/dev"))


def _below(directory: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.path not in _OWN_DIRECTORIES:
                yield from _below(entry.path)
        elif _is_device(entry) and not _is_own(entry.path):
            yield entry.path


def _is_device(entry: os.DirEntry[str]) -> bool:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        return False
    return os.access(entry.path, os.R_OK) or os.access(entry.path, os.W_OK)


def _is_own(path: str) -> bool:
    name = path.removeprefix("/dev/")
    return name in _OWN or name.startswith("tty")
