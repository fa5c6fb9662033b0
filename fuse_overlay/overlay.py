"""The overlay file system as a set of plain operations on inode numbers.

Knows nothing of FUSE. Operations are synchronous and run one at a time; each raises OSError with
the errno that the program is to see. Called by `protocol`, and by tests without a mount.
"""

import errno
import itertools
import os
import stat
from collections.abc import Iterator, Sequence

from fuse_overlay.attributes import Attributes
from fuse_overlay.backing import Backing
from fuse_overlay.changes import Changes, Maker
from fuse_overlay.copyup import Copier
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.layers import descriptor_path
from fuse_overlay.links import Links
from fuse_overlay.merge import UPPER, is_private_attribute
from fuse_overlay.rename import Rename
from fuse_overlay.tree import Tree
from fuse_overlay.workdir import WorkDirectory

_NAME_MAX = 255


class Overlay:
    """The union of `lowers` (topmost first) under `upper`, which changes go to.

    Without `upper` it is read-only.

    `work` must lie on the file system of `upper` and belongs to one Overlay at a time. With
    `volatile`, copied-up files are not synced: faster, but the upper directory may be incomplete
    after a power failure. Paths are opened here and not needed afterwards. Sets the process's umask
    to 0 and raises its limit on open files. Raises OSError, ValueError for an upper without a work
    directory.

    Numbers come from `lookup` and the operations that make things, each of which counts as one
    reference, to be given back by `forget`; 1 is the root.
    """

    def __init__(
        self,
        lowers: Sequence[str],
        upper: str | None = None,
        work: str | None = None,
        *,
        volatile: bool = False,
    ) -> None:
        if upper is not None and work is None:
            raise ValueError("an upper directory needs a work directory")
        os.umask(0)
        self._work = WorkDirectory(work) if upper is not None and work is not None else None
        self._links = Links(self._work.root) if self._work is not None else None
        self._backing = Backing(lowers, upper, self._links)
        self._tree = Tree(self._backing, len(lowers), writable=upper is not None)
        self._inodes = self._tree.inodes
        self._changes: Changes | None = None
        if self._work is not None and self._links is not None:
            self._work.check_same_file_system(self._backing.directory_fd(self._tree.root, UPPER))
            copier = Copier(self._tree, self._work, self._links, sync=not volatile)
            self._changes = Changes(self._tree, self._work, self._links, copier)
        self._listings: dict[int, tuple[Directory, list[bytes]]] = {}
        self._handles = itertools.count(1)

    @property
    def read_only(self) -> bool:
        return self._changes is None

    def close(self) -> None:
        """Close everything. The upper directory needs nothing more to be complete."""
        for inode in self._inodes:
            for fd in {inode.descriptor, inode.fd if isinstance(inode, File) else -1}:
                if fd >= 0:
                    os.close(fd)
        self._backing.close()
        if self._links is not None:
            self._links.close()
        if self._work is not None:
            self._work.close()

    # Inodes

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """The inode that a name in a directory reaches, with one more reference to it."""
        self._tree.trim()
        if len(name) > _NAME_MAX:
            raise _error(errno.ENAMETOOLONG)
        inode, status = self._tree.find(self._directory(parent), name)
        inode.references += 1
        return self._tree.attributes(inode, status)

    def reference(self, number: int) -> None:
        """Count one more reference to an inode that `readdir` showed."""
        self._inodes[number].references += 1

    def forget(self, number: int, count: int) -> None:
        """Give `count` references back. An inode without any, and without children in use, is
        freed.
        """
        self._inodes.forget(number, count)

    def getattr(self, number: int) -> Attributes:
        return self._tree.attributes(self._inode(number))

    def setattr(
        self,
        number: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
    ) -> Attributes:
        """Change what is given and leave what is None."""
        inode = self._inode(number)
        self._writer().copier.copy_up(inode, size)
        with self._backing.path(inode) as path:
            if size is not None:
                writable = isinstance(inode, File) and inode.writable
                os.truncate(inode.fd if writable and isinstance(inode, File) else path, size)
            if uid is not None or gid is not None:
                os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
            if mode is not None:  # after chown, which clears set-id bits
                os.chmod(path, stat.S_IMODE(mode))
            if atime_ns is not None or mtime_ns is not None:
                status = os.stat(path)
                os.utime(
                    path,
                    ns=(
                        status.st_atime_ns if atime_ns is None else atime_ns,
                        status.st_mtime_ns if mtime_ns is None else mtime_ns,
                    ),
                )
        return self._tree.attributes(inode)

    def readlink(self, number: int) -> bytes:
        return self._backing.readlink(self._file(number))

    def statfs(self) -> os.statvfs_result:
        """The file system of the upper directory, or of the topmost lower one."""
        return os.fstatvfs(self._backing.directory_fd(self._tree.root, self._tree.root.top))

    # Extended attributes

    def getxattr(self, number: int, name: bytes) -> bytes:
        if is_private_attribute(name):
            raise _error(errno.ENODATA)
        with self._backing.path(self._inode(number)) as path:
            return os.getxattr(path, name)

    def listxattr(self, number: int) -> list[bytes]:
        with self._backing.path(self._inode(number)) as path:
            names = [os.fsencode(name) for name in os.listxattr(path)]
        return [name for name in names if not is_private_attribute(name)]

    def setxattr(self, number: int, name: bytes, value: bytes, flags: int = 0) -> None:
        if is_private_attribute(name):
            raise _error(errno.EPERM)
        inode = self._inode(number)
        self._writer().copier.copy_up(inode)
        with self._backing.path(inode) as path:
            os.setxattr(path, name, value, flags)

    def removexattr(self, number: int, name: bytes) -> None:
        if is_private_attribute(name):
            raise _error(errno.EPERM)
        inode = self._inode(number)
        self.getxattr(number, name)
        self._writer().copier.copy_up(inode)
        with self._backing.path(inode) as path:
            os.removexattr(path, name)

    # Making and removing names

    def create(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes:
        """Make a regular file and open it for reading and writing. Raises as `open` does."""
        reserved = self._backing.reserve()

        def make(directory: int, new: bytes) -> None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            _replace(reserved, os.open(new, flags, stat.S_IMODE(mode), dir_fd=directory))

        try:
            file = self._made(parent, name, stat.S_IFREG | stat.S_IMODE(mode), uid, gid, make)
        except BaseException:
            os.close(reserved)
            raise
        assert isinstance(file, File)
        file.fd, file.opens, file.writable = reserved, 1, True
        return self._tree.attributes(file)

    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int
    ) -> Attributes:
        if stat.S_ISCHR(mode) and rdev == 0:
            raise _error(errno.EPERM)  # a whiteout, as the kernel's overlayfs refuses it

        def make(directory: int, new: bytes) -> None:
            os.mknod(new, mode, rdev, dir_fd=directory)

        return self._tree.attributes(self._made(parent, name, mode, uid, gid, make))

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attributes:
        def make(directory: int, new: bytes) -> None:
            os.symlink(target, new, dir_fd=directory)

        return self._tree.attributes(self._made(parent, name, stat.S_IFLNK, uid, gid, make))

    def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Attributes:
        def make(directory: int, new: bytes) -> None:
            os.mkdir(new, stat.S_IMODE(mode), dir_fd=directory)

        return self._tree.attributes(
            self._made(parent, name, stat.S_IFDIR | stat.S_IMODE(mode), uid, gid, make)
        )

    def link(self, number: int, parent: int, name: bytes) -> Attributes:
        """Give a file one more name. Counts as one reference."""
        file = self._file(number)
        self._writer().link(file, self._directory(parent), name)
        file.references += 1
        return self._tree.attributes(file)

    def unlink(self, parent: int, name: bytes) -> None:
        self._writer().unlink(self._directory(parent), name)

    def rmdir(self, parent: int, name: bytes) -> None:
        self._writer().rmdir(self._directory(parent), name)

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """Rename; flags are those of renameat2(2): RENAME_NOREPLACE (1) or RENAME_EXCHANGE (2)."""
        move = Rename(self._writer())
        move.rename(self._directory(parent), name, self._directory(new_parent), new_name, flags)

    # Files

    def open(self, number: int, flags: int) -> None:
        """Open a regular file, by the access mode and O_TRUNC of `flags`. Balanced by `release`.

        Raises OSError(ENFILE) when so many are open that the rest is needed to go on.
        """
        file = self._file(number)
        writable = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        fd = file.fd if file.fd >= 0 else self._backing.reserve()
        try:
            if writable:
                self._writer().copier.copy_up(file, 0 if flags & os.O_TRUNC else None)
            if file.fd < 0 or (writable and not file.writable):
                _replace(fd, self._backing.open_data(file, os.O_RDWR if writable else os.O_RDONLY))
        except BaseException:
            if file.fd < 0:
                os.close(fd)
            raise
        file.fd, file.writable = fd, writable or file.writable
        file.opens += 1
        if flags & os.O_TRUNC:
            os.ftruncate(file.fd, 0)

    def read(self, number: int, offset: int, size: int) -> bytes:
        return os.pread(self._file(number).fd, size, offset)

    def write(self, number: int, offset: int, data: bytes) -> int:
        return os.pwrite(self._file(number).fd, data, offset)

    def fsync(self, number: int, *, data_only: bool) -> None:
        fd = self._file(number).fd
        (os.fdatasync if data_only else os.fsync)(fd)

    def release(self, number: int) -> None:
        file = self._file(number)
        file.opens -= 1
        if file.opens == 0:
            if file.fd != file.descriptor:
                os.close(file.fd)
            file.fd, file.writable = -1, False
            self._inodes.drop_unused(file)

    # Directories

    def opendir(self, number: int) -> int:
        """A handle for `readdir`, to be closed by `releasedir`."""
        handle = next(self._handles)
        self._listings[handle] = self._directory(number), []
        return handle

    def readdir(self, handle: int, offset: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """The entries after `offset` (0: from the start, as they are now) as (name, attributes,
        offset of the next).

        An inode that is shown without `reference` being called may be freed when the iteration goes
        on.
        """
        directory, names = self._listings[handle]
        if offset == 0:
            names[:] = [b".", b"..", *self._tree.visible_names(directory)]
        for position in range(offset, len(names)):
            self._tree.trim()
            name = names[position]
            if position < 2:
                inode: Inode = directory if position == 0 else directory.parent or directory
                yield name, self._tree.attributes(inode), position + 1
                continue
            try:
                inode, status = self._tree.find(directory, name)
            except FileNotFoundError:
                continue  # removed since the directory was read
            try:
                yield name, self._tree.attributes(inode, status), position + 1
            finally:
                self._inodes.drop_unused(inode)

    def releasedir(self, handle: int) -> None:
        del self._listings[handle]

    def fsyncdir(self, handle: int) -> None:
        directory = self._listings[handle][0]
        if directory.in_upper and not directory.removed:
            fd = os.open(
                descriptor_path(self._backing.directory_fd(directory, UPPER)),
                os.O_RDONLY | os.O_CLOEXEC,
            )
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    # Inside

    def _inode(self, number: int) -> Inode:
        try:
            return self._inodes[number]
        except KeyError:
            raise _error(errno.ESTALE) from None

    def _directory(self, number: int) -> Directory:
        inode = self._inode(number)
        if not isinstance(inode, Directory):
            raise _error(errno.ENOTDIR)
        return inode

    def _file(self, number: int) -> File:
        inode = self._inode(number)
        if not isinstance(inode, File):
            raise _error(errno.EISDIR)
        return inode

    def _writer(self) -> Changes:
        self._tree.trim()
        if self._changes is None:
            raise _error(errno.EROFS)
        return self._changes

    def _made(self, parent: int, name: bytes, mode: int, uid: int, gid: int, make: Maker) -> Inode:
        inode = self._writer().make(self._directory(parent), name, mode, uid, gid, make)
        inode.references = 1
        return inode


def _replace(fd: int, by: int) -> None:
    """Make a descriptor refer to what `by` does, which is closed."""
    try:
        os.dup2(by, fd, inheritable=False)
    finally:
        os.close(by)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
