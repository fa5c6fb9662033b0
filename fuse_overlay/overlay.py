"""The overlay file system as a set of plain operations on inode numbers.

Knows nothing of FUSE. Operations are synchronous and run one at a time; each raises OSError with
the errno that the program is to see. Called by `requests` (or
`pyfuse3_operations`), and by tests without a mount.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fuse_overlay.attributes import Attributes
from fuse_overlay.backing import Backing
from fuse_overlay.changes import Changes, Maker
from fuse_overlay.copyup import Copier
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.jobs import Jobs
from fuse_overlay.links import Links
from fuse_overlay.merge import UPPER, is_private_attribute
from fuse_overlay.permissions import Permissions
from fuse_overlay.quota import Quota
from fuse_overlay.recovery import settle_links
from fuse_overlay.rename import Rename
from fuse_overlay.syscalls import FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_PUNCH_HOLE, fallocate
from fuse_overlay.tree import Tree
from fuse_overlay.workdir import WorkDirectory

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fuse_overlay.ownership import Ownership

_NAME_MAX = 255
_FIRST = 2
"""The offset of the first name in a directory, after `.` and `..`."""


class Overlay:
    """The union of `lowers` (topmost first) under `upper`, which changes go to.

    Without `upper` it is read-only.

    `work` must lie on the file system of `upper` and belongs to one Overlay at a time. With
    `volatile`, nothing is done for copied-up files to outlast a power failure. `size` (bytes) and
    `inodes` limit what the upper directory may hold (see `quota`); `owners` says who owns what
    (None: whom the layers say).

    Paths are opened here and not needed afterwards. Sets the process's umask to 0 and raises its
    limit on open files. Raises OSError, ValueError for an upper without a work directory.

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
        size: int | None = None,
        inodes: int | None = None,
        owners: "Ownership | None" = None,
    ) -> None:
        if upper is not None and work is None:
            raise ValueError("an upper directory needs a work directory")
        os.umask(0)
        self._work = WorkDirectory(work) if upper is not None and work is not None else None
        self._links = Links(self._work.root) if self._work is not None else None
        self._backing = Backing(lowers, upper, self._links)
        self._tree = Tree(self._backing, len(lowers), owners, writable=upper is not None)
        self._inodes = self._tree.inodes
        self._permissions = Permissions(self._tree)
        self.modes_changed = self._permissions.changed
        self._jobs = Jobs()
        self._changes: Changes | None = None
        if self._work is not None and self._links is not None:
            self._work.check_same_file_system(self._backing.directory_fd(self._tree.root, UPPER))
            copier = Copier(self._tree, self._work, self._links, self._jobs, sync=not volatile)
            self._changes = Changes(self._tree, self._work, self._links, copier)
            settle_links(self._tree, self._links, copier)
            if size is not None or inodes is not None:
                root = self._tree.root
                root_fd = self._backing.directory_fd(root, UPPER)
                self._tree.quota = Quota(size, inodes, root_fd, self._links.fd)
                root.charged = os.fstat(root_fd).st_blocks

    @property
    def read_only(self) -> bool:
        return self._changes is None

    @property
    def limited(self) -> bool:
        """Whether there is a disk limit, which every write has to meet at once."""
        return self._tree.quota is not None

    def limit(self, size: int | None, inodes: int | None) -> None:
        """Change the disk limit of an overlay that began with one."""
        assert self._tree.quota is not None
        self._tree.quota.limit(size, inodes)

    def close(self) -> None:
        """Close everything. The upper directory needs nothing more to be complete."""
        self._jobs.close()
        if self._changes is not None:
            self._changes.copier.close()
        for inode in self._inodes:
            if inode.descriptor >= 0:
                os.close(inode.descriptor)
        self._backing.close()
        if self._links is not None:
            self._links.close()
        if self._work is not None:
            self._work.close()

    def trim(self) -> None:
        """Keep memory and descriptors bounded. To be called between operations, now and then."""
        self._tree.trim()
        if self._changes is not None:
            self._changes.copier.trim()

    # Inodes

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """The inode that a name in a directory reaches, with one more reference to it, or None."""
        if len(name) > _NAME_MAX:
            raise _error(errno.ENAMETOOLONG)
        found = self._tree.seek(self._directory(parent), name)
        if found is None:
            return None
        inode, status = found
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
        kill_suidgid: bool = False,
    ) -> Attributes:
        """Change what is given and leave what is None.

        `kill_suidgid`: a size that is set takes set-id bits away (FUSE_HANDLE_KILLPRIV_V2).
        """
        inode = self._inode(number)
        if mode is uid is gid is size is atime_ns is None and self._keeps_mtime(inode, mtime_ns):
            return self._tree.attributes(inode)
        if mode is not None and isinstance(inode, File) and stat.S_ISLNK(inode.type):
            raise _error(errno.EOPNOTSUPP)
        self._writer().copier.copy_up(inode, size)
        if mode is uid is gid is size is atime_ns is mtime_ns is None:
            # chown(2) to nobody else, which takes set-id bits away all the same.
            before = self._tree.attributes(inode)
            uid, gid = before.uid, before.gid
        if size is not None:
            file = self._file(number)
            fd = self._backing.data(file, write=True)
            if kill_suidgid:
                self._permissions.drop(file, fd)
            os.ftruncate(fd, size)
            file.mtime, file.late = None, False
        if not (mode is uid is gid is None):
            self._permissions.change(inode, mode, uid, gid)
        if not (atime_ns is mtime_ns is None):
            self._backing.set_times(inode, atime_ns, mtime_ns)
        status = self._backing.status(inode)
        self._tree.changed(inode, status)
        return self._tree.attributes(inode, status)

    def _keeps_mtime(self, inode: Inode, mtime_ns: int | None) -> bool:
        """Whether a lower file's time is set to what it is.

        With the writeback cache the kernel writes times back when a file has lost a name: no reason
        to copy it.
        """
        if not isinstance(inode, File) or inode.layer == UPPER:
            return False
        return mtime_ns == self._backing.status(inode).st_mtime_ns

    def readlink(self, number: int) -> bytes:
        return self._backing.readlink(self._file(number))

    def statfs(self) -> os.statvfs_result:
        """The file system of the upper directory, or of the topmost lower one."""
        below = os.fstatvfs(self._backing.directory_fd(self._tree.root, self._tree.root.top))
        return below if self._tree.quota is None else self._tree.quota.statvfs(below)

    # Extended attributes

    def getxattr(self, number: int, name: bytes) -> bytes:
        inode = self._inode(number)
        if is_private_attribute(name):
            raise _error(errno.ENODATA)
        return self._backing.getxattr(inode, name)

    def listxattr(self, number: int) -> list[bytes]:
        return self._backing.listxattr(self._inode(number))

    def setxattr(
        self, number: int, name: bytes, value: bytes, flags: int = 0, *, kill_sgid: bool = False
    ) -> None:
        """Set an attribute; `flags` are those of setxattr(2).

        `kill_sgid`: an ACL that is set takes the set-group-id bit away.
        """
        if is_private_attribute(name):
            raise _error(errno.EPERM)
        inode = self._inode(number)
        self._writer().copier.copy_up(inode)
        path, follow = self._backing.path(inode)
        inode.bare = None
        self._tree.check_room()
        os.setxattr(path, name, value, flags, follow_symlinks=follow)
        self._tree.changed(inode)
        if kill_sgid:
            self.setattr(number, mode=self._tree.attributes(inode).mode & ~stat.S_ISGID)

    def removexattr(self, number: int, name: bytes) -> None:
        """Remove an attribute. One that is not there is an error (ENODATA) or not, as the file
        system of the upper directory has it.
        """
        if is_private_attribute(name):
            raise _error(errno.EPERM)
        inode = self._inode(number)
        if not inode.in_upper:
            self._backing.getxattr(inode, name)  # what is not there needs no copy
        self._writer().copier.copy_up(inode)
        path, follow = self._backing.path(inode)
        inode.bare = None
        os.removexattr(path, name, follow_symlinks=follow)
        self._tree.changed(inode)

    # Making and removing names

    def mknod(
        self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int, umask: int = 0
    ) -> Attributes:
        """Make a file of the type in `mode`."""
        if stat.S_ISCHR(mode) and rdev == 0:
            raise _error(errno.EPERM)  # a whiteout, as the kernel's overlayfs refuses it

        kind = stat.S_IFMT(mode) or stat.S_IFREG
        mode = kind | stat.S_IMODE(mode)

        def make(directory: int, new: bytes, mode: int) -> int:
            if stat.S_ISREG(kind):  # it is going to be written
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                return os.open(new, flags, stat.S_IMODE(mode), dir_fd=directory)
            os.mknod(new, kind | mode, rdev, dir_fd=directory)
            return -1

        return self._made(parent, name, mode, uid, gid, umask, make)

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> Attributes:
        def make(directory: int, new: bytes, _: int) -> int:
            os.symlink(target, new, dir_fd=directory)
            return -1

        return self._made(parent, name, stat.S_IFLNK, uid, gid, 0, make)

    def mkdir(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, umask: int = 0
    ) -> Attributes:
        def make(directory: int, new: bytes, mode: int) -> int:
            os.mkdir(new, stat.S_IMODE(mode), dir_fd=directory)
            return -1

        mode = stat.S_IFDIR | stat.S_IMODE(mode)
        return self._made(parent, name, mode, uid, gid, umask, make)

    def tmpfile(self, parent: int, mode: int, uid: int, gid: int, umask: int = 0) -> Attributes:
        """Make a regular file without a name, which `link` can give one. Counts as one
        reference.
        """
        mode = stat.S_IFREG | stat.S_IMODE(mode)
        file = self._writer().make_unnamed(self._directory(parent), mode, uid, gid, umask)
        file.references = 1
        return self._tree.attributes(file)

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

    # Files. There is no open: what programs have open is known by its inode.

    def read(self, number: int, offset: int, size: int) -> bytes:
        return os.pread(self._backing.data(self._file(number), write=False), size, offset)

    def write(
        self,
        number: int,
        offset: int,
        data: bytes | memoryview,
        *,
        kill_suidgid: bool = False,
        cached: bool = False,
        keep_mtime: bool = False,
    ) -> int:
        """Write. Returns the number of bytes. `kill_suidgid`: as in `setattr`.

        `cached`: the kernel brings what was written before, by write(2), whose effects on set-id
        bits and capabilities it has seen to, or through memory, which has none. `keep_mtime`: it
        sees to the time as well.
        """
        file, fd = self._writable(number)
        quota = self._tree.quota
        if quota is not None:
            data = data[: quota.writable(fd, offset, len(data))]
        privileges = None
        if kill_suidgid:
            self._permissions.drop(file, fd)
        elif cached and (file.set_id or not file.bare):
            privileges = self._permissions.held(file, fd)
        if keep_mtime:
            self._backing.keep_time(file)
        written = os.pwrite(fd, data, offset)
        if privileges is not None:
            self._permissions.give_back(fd, privileges)
        if not keep_mtime:
            self._written(file)
        return written

    def fallocate(
        self, number: int, mode: int, offset: int, length: int, *, kill_suidgid: bool = False
    ) -> None:
        """As fallocate(2). `kill_suidgid`: as in `setattr`."""
        file, fd = self._writable(number)
        if kill_suidgid:
            self._permissions.drop(file, fd)
        quota = self._tree.quota
        allocates = not mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE)
        if quota is not None and allocates and quota.writable(fd, offset, length) < length:
            raise _error(errno.ENOSPC)
        fallocate(fd, mode, offset, length)
        self._written(file)

    def lseek(self, number: int, offset: int, whence: int) -> int:
        """The next data (SEEK_DATA) or hole (SEEK_HOLE)."""
        return os.lseek(self._backing.data(self._file(number), write=False), offset, whence)

    def copy_file_range(
        self,
        number: int,
        offset: int,
        target: int,
        target_offset: int,
        length: int,
        *,
        kill_suidgid: bool = False,
    ) -> int:
        """Copy from one file to another inside the file system below. Returns the number of
        bytes. `kill_suidgid`: as in `setattr`.
        """
        target_file, target_fd = self._writable(target)
        source_fd = self._backing.data(self._file(number), write=False)
        if self._tree.quota is not None:
            length = self._tree.quota.writable(target_fd, target_offset, length)
        if kill_suidgid:
            self._permissions.drop(target_file, target_fd)
        copied = os.copy_file_range(source_fd, target_fd, length, offset, target_offset)
        self._written(target_file)
        return copied

    def _written(self, file: File) -> None:
        """Book that a file was changed without the kernel's cache: count what it uses now, and once
        more when it is freed.
        """
        file.mtime, file.late = None, False
        self._tree.changed(file)
        file.unsettled = True

    def fsync(self, number: int, *, data_only: bool) -> "Future[None] | None":
        """Bring a file to disk; if not done (None), then when the result is."""
        file = self._file(number)
        if file.layer != UPPER:
            return None
        return self._jobs.sync(self._backing.data(file, write=False), data_only=data_only)

    def fsyncdir(self, number: int) -> "Future[None] | None":
        """Bring the names in a directory to disk; as `fsync`."""
        directory = self._directory(number)
        if not directory.in_upper or directory.removed:
            return None
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        fd = os.open(".", flags, dir_fd=self._backing.directory_fd(directory, UPPER))
        try:
            return self._jobs.sync(fd, data_only=False)
        finally:
            os.close(fd)

    # Directories

    def readdir(self, number: int, offset: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """The entries after `offset` (0: from the start) as (name, attributes, offset of the next).

        An inode that is shown without `reference` being called may be freed when the iteration goes
        on.
        """
        directory = self._directory(number)
        if offset == 0:
            yield b".", self._tree.attributes(directory), 1
        if offset <= 1:
            yield b"..", self._tree.attributes(directory.parent or directory), _FIRST
        start, listing = self._tree.listing(directory)
        for position in range(max(offset - _FIRST - start, 0), len(listing)):
            name = listing[position]
            try:
                found = None if name is None else self._tree.seek(directory, name)
            except OSError:
                continue  # one entry that cannot be read must not hide the others
            if name is None or found is None:
                continue
            inode, status = found
            try:
                yield name, self._tree.attributes(inode, status), start + position + _FIRST + 1
            finally:
                if inode.references == 0:
                    self._inodes.drop_unused(inode)

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
        if self._changes is None:
            raise _error(errno.EROFS)
        return self._changes

    def _writable(self, number: int) -> tuple[File, int]:
        """A file, which is copied up if need be, and a descriptor to write to it with."""
        file = self._file(number)
        if file.layer != UPPER:
            self._writer().copier.copy_up(file)
        return file, self._backing.data(file, write=True)

    def _made(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int, umask: int, make: Maker
    ) -> Attributes:
        writer = self._writer()
        inode, status = writer.make(self._directory(parent), name, mode, uid, gid, umask, make)
        inode.references = 1
        return self._tree.attributes(inode, status)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
