"""Descriptors of backing directories: opened when needed, a bounded number of them kept.

Opens one component at a time, never follows a symlink, and never opens anything but directories.
Called by `backing`.
"""

import os
import resource
from collections import OrderedDict

from fuse_overlay.inodes import Directory
from fuse_overlay.layers import open_directory


def raise_limit() -> int:
    """Raise the soft limit on open files to the hard one. Returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class DirectoryDescriptors:
    """O_PATH descriptors by (directory, layer), the least recently used closed first.

    `roots` gives each layer's root descriptor; they are owned here and closed by `close`.
    """

    def __init__(self, roots: dict[int, int], limit: int) -> None:
        self._roots = roots
        self._limit = limit
        self._open: OrderedDict[tuple[Directory, int], int] = OrderedDict()

    def get(self, directory: Directory, layer: int) -> int:
        """The descriptor of `directory` in `layer`. Valid until the next `trim` or `discard`.

        Raises OSError: ENOENT, ENOTDIR or ELOOP where that layer has no directory there.
        """
        fd = self._open.get((directory, layer))
        if fd is not None:
            self._open.move_to_end((directory, layer))
            return fd
        missing: list[Directory] = []
        while directory.parent is not None and fd is None:
            missing.append(directory)
            directory = directory.parent
            fd = self._open.get((directory, layer))
        if fd is None:
            fd = self._roots[layer]
        kept = True
        for depth, directory in enumerate(reversed(missing), 1):
            inner = open_directory(directory.name, fd)
            if not kept:
                os.close(fd)
            fd = inner
            # Of a very long path, only the last part.
            kept = len(missing) - depth < max(self._limit // 2, 1)
            if kept:
                self._open[directory, layer] = fd
        return fd

    def trim(self) -> None:
        """Close the least recently used beyond the limit.

        To be called between operations, never inside one: what `get` gave would become invalid.
        """
        while len(self._open) > self._limit:
            _, fd = self._open.popitem(last=False)
            os.close(fd)

    def discard(self, directory: Directory, layer: int) -> None:
        fd = self._open.pop((directory, layer), None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        for fd in (*self._open.values(), *self._roots.values()):
            os.close(fd)
        self._open.clear()
        self._roots.clear()
