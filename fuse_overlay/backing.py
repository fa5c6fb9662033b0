"""Where the backing files of inodes lie, how they are reached (descriptors and paths), and their
times and extended attributes.

Never follows a symlink of a layer, and opens nothing but directories and regular files: all else is
reached through O_PATH descriptors. Called by `tree` and by what changes the upper directory.
"""

import errno
import fcntl
import os
import stat
from collections import OrderedDict
from collections.abc import Sequence

from fuse_overlay.descriptors import DirectoryDescriptors, raise_limit
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.layers import DIRECTORY_FLAGS, OBJECT_FLAGS, descriptor_path
from fuse_overlay.links import Links
from fuse_overlay.merge import UPPER, is_private_attribute
from fuse_overlay.syscalls import set_times

_DIRECTORIES = 4096
"""Directories kept open at most; no more than a quarter of what the process may open."""

_FILES = 1024
"""Files kept open at most; no more than a quarter either."""

_RESERVE = 128
"""Descriptors for what one operation opens and closes; no more than an eighth of the same."""


_DATA_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


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
        self._open: OrderedDict[File, None] = OrderedDict()
        self._files = min(_FILES, limit // 4)
        self._others = len(roots) + directories + self._files + min(_RESERVE, limit // 8)
        self.links = links

    def keep(self, inode: Inode) -> int:
        """A descriptor of an inode that is about to lose its name, to be kept for as long as the
        kernel knows it.

        What is kept has numbers above those that all other operations can need. Raises
        OSError(ENFILE) when these are used up.
        """
        if isinstance(inode, File) and inode.fd >= 0:
            return self.keep_fd(inode.fd)
        fd = self.open_path(inode)
        try:
            return self.keep_fd(fd)
        finally:
            os.close(fd)

    def keep_fd(self, fd: int) -> int:
        """As `keep`, by a descriptor that is there."""
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self._others)
        except OSError:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE)) from None

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

    def path(self, inode: Inode) -> tuple[bytes, bool]:
        """A path that reaches an inode's backing file, and whether its last part, which is one of
        /proc, is to be followed. It ends at that file, even if that is a symlink.
        """
        if inode.descriptor >= 0:
            return b"/proc/self/fd/%d" % inode.descriptor, True
        if isinstance(inode, File):
            return b"/proc/self/fd/%d/%b" % self.location(inode), False
        assert isinstance(inode, Directory)
        return b"/proc/self/fd/%d/." % self.directory_fd(inode, inode.top), False

    def handle(self, inode: Inode) -> tuple[int | bytes, bool]:
        """As `path`, or the descriptor of an inode that is open."""
        if isinstance(inode, File) and inode.fd >= 0:
            return inode.fd, True
        return self.path(inode)

    def open_path(self, inode: Inode) -> int:
        """A new O_PATH descriptor of an inode's backing file."""
        if inode.descriptor >= 0:
            return os.dup(inode.descriptor)
        if isinstance(inode, File):
            directory, name = self.location(inode)
            return os.open(name, OBJECT_FLAGS, dir_fd=directory)
        assert isinstance(inode, Directory)
        return os.dup(self.directory_fd(inode, inode.top))

    def data(self, file: File, *, write: bool) -> int:
        """A descriptor of a regular file, to read from and, with `write`, to write to.

        Valid until the next `trim` or `close_data`. Raises OSError(ENXIO) for what is no regular
        file: opening it might block, or act.
        """
        fd = file.fd
        if fd >= 0:
            if file.writable or not write:
                self._open.move_to_end(file)
                return fd
            self.close_data(file)
        if not stat.S_ISREG(file.type):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        flags = (os.O_RDWR if write else os.O_RDONLY) | _DATA_FLAGS
        if file.descriptor >= 0:
            fd = os.open(descriptor_path(file.descriptor), flags)
        else:
            directory, name = self.location(file)
            fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
        self.opened(file, fd, writable=write)
        return fd

    def opened(self, file: File, fd: int, *, writable: bool) -> None:
        """Keep `fd` as what `data` gives for a file."""
        file.fd, file.writable = fd, writable
        self._open[file] = None

    def close_data(self, file: File) -> None:
        """Close what `data` gave for a file, if it is open."""
        if file.fd >= 0:
            if file.late and file.descriptor < 0:  # it has a name
                self._set_late_time(file)
            del self._open[file]
            os.close(file.fd)
            file.fd, file.writable = -1, False

    def readlink(self, file: File) -> bytes:
        directory, name = (file.descriptor, b"") if file.descriptor >= 0 else self.location(file)
        return os.readlink(name, dir_fd=directory)

    def status(self, inode: Inode) -> os.stat_result:
        if inode.descriptor >= 0:
            return os.fstat(inode.descriptor)
        if isinstance(inode, File):
            if inode.fd >= 0:
                if inode.late:
                    self._set_late_time(inode)
                return os.fstat(inode.fd)
            directory, name = self.location(inode)
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        assert isinstance(inode, Directory)
        return os.fstat(self.directory_fd(inode, inode.top))

    def set_times(self, inode: Inode, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set the times that are not None."""
        path, follow = self.handle(inode)
        set_times(path, atime_ns, mtime_ns, follow=follow)
        if mtime_ns is not None and isinstance(inode, File):
            inode.mtime, inode.late = mtime_ns, False

    def keep_time(self, file: File) -> None:
        """Let a file keep its modification time over the writes that come now.

        The kernel, which collects writes, sees to the time itself, but may have set it before it
        brings the last of them, or not at all where it stays the same. It is `late`, and set again
        when somebody looks, unless the kernel sets it before.
        """
        if file.mtime is None:
            file.mtime = self.status(file).st_mtime_ns
        file.late = True

    def _set_late_time(self, file: File) -> None:
        file.late = False
        try:
            set_times(file.fd, None, file.mtime, follow=True)
        except OSError:
            pass  # nobody has asked for it just now

    # Extended attributes

    def listxattr(self, inode: Inode) -> list[bytes]:
        """The attributes that programs may see. Raises OSError."""
        if inode.bare:
            return []
        path, follow = self.handle(inode)
        try:
            names = os.listxattr(path, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            names = []
        visible = [name for name in map(os.fsencode, names) if not is_private_attribute(name)]
        inode.bare = not visible
        return visible

    def getxattr(self, inode: Inode, name: bytes) -> bytes:
        """Raises OSError: ENODATA where there is none of that name."""
        if inode.bare is None:
            self.listxattr(inode)
        if inode.bare:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        path, follow = self.handle(inode)
        return os.getxattr(path, name, follow_symlinks=follow)

    # Upkeep

    def trim(self) -> None:
        """Keep descriptors bounded. To be called between operations."""
        self._descriptors.trim()
        while len(self._open) > self._files:
            self.close_data(next(iter(self._open)))

    def close(self) -> None:
        """Close all files and directories."""
        for file in tuple(self._open):
            self.close_data(file)
        self._descriptors.close()
