"""Where the backing files of inodes lie, and how they are reached: descriptors and paths.

Never follows a symlink of a layer, and opens nothing but directories and regular files: all else is
reached through O_PATH descriptors. Called by `tree` and by what changes the upper directory.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fuse_overlay.descriptors import DirectoryDescriptors, raise_limit
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.layers import DIRECTORY_FLAGS, OBJECT_FLAGS, descriptor_path
from fuse_overlay.links import Links
from fuse_overlay.merge import UPPER

_DIRECTORIES = 4096
"""Directories kept open at most; no more than a quarter of what the process may open."""

_RESERVE = 64
"""Descriptors for what one operation opens and closes; no more than an eighth of the same."""


class Backing:
    """The layers `upper` (or None) and `lowers`, topmost first; paths are followed as named."""

    def __init__(self, lowers: Sequence[str], upper: str | None, links: Links | None) -> None:
        roots: dict[int, int] = {}
        if upper is not None:
            roots[UPPER] = os.open(upper, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        for layer, path in enumerate(lowers, UPPER + 1):
            roots[layer] = os.open(path, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        limit = raise_limit()
        directories = min(_DIRECTORIES, limit // 4)
        self._descriptors = DirectoryDescriptors(roots, directories)
        self._any_fd = next(iter(roots.values()))
        others = directories + min(_RESERVE, limit // 8)
        self._kept_limit = limit - others
        self._files_limit = limit - 2 * others
        self.links = links

    def keep(self, fd: int) -> int:
        """Return `fd`, a descriptor that is kept for as long as a program wants.

        Closes it and raises OSError(ENFILE) where it would leave too few for other operations: all
        that are kept have numbers below the limit, so what is above stays free for the rest.
        """
        return self._keep(fd, self._kept_limit)

    def reserve(self) -> int:
        """A descriptor that an open file's is to replace, by dup2. Raises as `keep` does.

        Refused well before `keep` does, so that with very many files open and all directories that
        are kept, names can still be removed.
        """
        return self._keep(os.dup(self._any_fd), self._files_limit)

    def _keep(self, fd: int, limit: int) -> int:
        if fd >= limit:
            os.close(fd)
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return fd

    def directory_fd(self, directory: Directory, layer: int) -> int:
        """An O_PATH descriptor of a directory in one layer, valid during this operation."""
        return self._descriptors.get(directory, layer)

    def discard_fds(self, directory: Directory) -> None:
        """A directory's layers are about to change."""
        for layer in (UPPER, *directory.lowers):
            self._descriptors.discard(directory, layer)

    def location(self, file: File) -> tuple[int, bytes]:
        """Where a file's backing file is: (directory descriptor, name).

        Raises OSError(ESTALE) if no name is known.
        """
        if file.link_key is not None and self.links is not None:
            return self.links.fd, self.links.name(file.link_key)
        if not file.names:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        parent, name = file.names[0]
        return self.directory_fd(parent, file.layer), name

    @contextmanager
    def path(self, inode: Inode) -> Iterator[str]:
        """A path that reaches an inode's backing file and ends there, also if it is a symlink."""
        if inode.descriptor >= 0:
            yield descriptor_path(inode.descriptor)
        elif isinstance(inode, File):
            fd = self.open_path(inode)
            try:
                yield descriptor_path(fd)
            finally:
                os.close(fd)
        elif isinstance(inode, Directory):
            yield descriptor_path(self.directory_fd(inode, inode.top))

    def open_path(self, file: File) -> int:
        """A new O_PATH descriptor of a file."""
        if file.descriptor >= 0:
            return os.dup(file.descriptor)
        directory, name = self.location(file)
        return os.open(name, OBJECT_FLAGS, dir_fd=directory)

    def open_data(self, file: File, flags: int) -> int:
        """Open a regular file for reading or writing.

        Raises OSError(ENXIO) for all else: opening it might block, or act.
        """
        fd = self.open_path(file)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return os.open(descriptor_path(fd), flags | os.O_CLOEXEC | os.O_NOCTTY)
        finally:
            os.close(fd)

    def readlink(self, file: File) -> bytes:
        directory, name = (file.descriptor, b"") if file.descriptor >= 0 else self.location(file)
        return os.readlink(name, dir_fd=directory)

    def status(self, inode: Inode) -> os.stat_result:
        if inode.descriptor >= 0:
            return os.fstat(inode.descriptor)
        if isinstance(inode, File):
            directory, name = self.location(inode)
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        assert isinstance(inode, Directory)
        return os.fstat(self.directory_fd(inode, inode.top))

    def trim(self) -> None:
        """Keep descriptors bounded. To be called between operations."""
        self._descriptors.trim()

    def close(self) -> None:
        """Close all directories."""
        self._descriptors.close()
