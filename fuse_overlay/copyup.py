"""Copy-up: gives what lies in a lower layer a copy in the upper one, before it is changed.

A copy is made in the work directory and appears in one step; programs that have the file open go on
with the copy. Called by `overlay`, `changes` and `rename`.
"""

import errno
import os
import stat

from fuse_overlay.copydata import copy_data, copy_metadata
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.layers import OBJECT_FLAGS, descriptor_path
from fuse_overlay.links import Links, link_key
from fuse_overlay.merge import UPPER, Kind
from fuse_overlay.tree import Tree
from fuse_overlay.workdir import WorkDirectory, make_opaque


class Copier:
    """Copies what `tree` found. With `sync`, a file is on disk before it replaces the lower one."""

    def __init__(self, tree: Tree, work: WorkDirectory, links: Links, *, sync: bool) -> None:
        self._tree = tree
        self._backing = tree.backing
        self._inodes = tree.inodes
        self._work = work
        self._links = links
        self._sync = sync

    def copy_up(self, inode: Inode, size: int | None = None) -> None:
        """Give an inode and its parents an upper copy, if they have none.

        Of a file's data, only the first `size` bytes are copied (None: all).
        """
        if isinstance(inode, Directory):
            self.copy_up_directory(inode)
        elif isinstance(inode, File) and inode.layer != UPPER:
            self._copy_up_file(inode, size)

    def copy_up_directory(self, directory: Directory) -> None:
        """Give a directory and its parents an upper one. Raises OSError(ENOENT) if removed."""
        missing: list[Directory] = []
        while not directory.in_upper:
            if directory.removed or directory.parent is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            missing.append(directory)
            directory = directory.parent
        for directory in reversed(missing):
            assert directory.parent is not None
            with self._backing.path(directory) as source:
                temporary = self._work.temporary()
                try:
                    os.mkdir(temporary, 0o700, dir_fd=self._work.fd)
                    self._finish_copy(temporary, source, os.stat(source))
                    self._publish(temporary, directory.parent, directory.name)
                finally:
                    self._work.remove(temporary)
            self._names(directory.parent)[directory.name] = Kind.DIRECTORY
            directory.in_upper = True

    def _copy_up_file(self, file: File, size: int | None) -> None:
        for parent, _ in file.names:
            self.copy_up_directory(parent)
        status = self._backing.status(file)
        temporary = self._work.temporary()
        copy = data = -1
        try:
            self._copy(file, status, temporary, size)
            copy = os.open(temporary, OBJECT_FLAGS, dir_fd=self._work.fd)
            if file.fd >= 0:
                data = os.open(descriptor_path(copy), os.O_RDONLY | os.O_CLOEXEC)
            self._place_copy(file, status, temporary)
            self._inodes.keep_number(os.fstat(copy), file.number)
            file.layer = UPPER
            file.lost_names = 0
            if file.descriptor >= 0:
                os.dup2(copy, file.descriptor, inheritable=False)
            if file.fd >= 0:  # programs that have it open go on with the copy
                os.dup2(data, file.fd, inheritable=False)
        finally:
            self._work.remove(temporary)
            for fd in (copy, data):
                if fd >= 0:
                    os.close(fd)
        for parent, name in file.names:
            self.materialize(file, parent, name)

    def _copy(self, file: File, status: os.stat_result, temporary: bytes, size: int | None) -> None:
        work = self._work.fd
        with self._backing.path(file) as source:
            if stat.S_ISREG(status.st_mode):
                target = os.open(
                    temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=work
                )
                try:
                    data = self._backing.open_data(file, os.O_RDONLY)
                    try:
                        copy_data(
                            data,
                            target,
                            status.st_size if size is None else min(size, status.st_size),
                        )
                    finally:
                        os.close(data)
                    copy_metadata(source, descriptor_path(target), status)
                    if self._sync:
                        os.fsync(target)
                finally:
                    os.close(target)
                return
            if stat.S_ISLNK(status.st_mode):
                os.symlink(self._backing.readlink(file), temporary, dir_fd=work)
            else:
                os.mknod(temporary, status.st_mode, status.st_rdev, dir_fd=work)
            self._finish_copy(temporary, source, status)

    def _finish_copy(self, temporary: bytes, source: str, status: os.stat_result) -> None:
        fd = os.open(temporary, OBJECT_FLAGS, dir_fd=self._work.fd)
        try:
            copy_metadata(source, descriptor_path(fd), status)
        finally:
            os.close(fd)

    def _place_copy(self, file: File, status: os.stat_result, temporary: bytes) -> None:
        """Let a finished copy take the place of the lower file, if any name leads there."""
        links = self._tree.links(file, status)
        if file.names and links == 1:
            parent, name = file.names[0]
            self._publish(temporary, parent, name)
            self._names(parent)[name] = Kind.OTHER
        elif file.names:
            key = link_key(file.layer, status)
            self._links.add(self._work.fd, temporary, key, links - 1)
            copy = os.stat(self._links.name(key), dir_fd=self._links.fd, follow_symlinks=False)
            self._inodes.add_key(file, (UPPER, copy.st_dev, copy.st_ino))
            file.link_key = key

    def materialize(self, file: File, parent: Directory, name: bytes) -> None:
        """Give a name of a copied file that only `links` reaches its own upper entry."""
        if file.link_key is None or self._names(parent).get(name) is Kind.OTHER:
            return
        source = self._links.name(file.link_key)
        with self._kept_times(parent):
            os.link(
                source,
                name,
                src_dir_fd=self._links.fd,
                dst_dir_fd=self._backing.directory_fd(parent, UPPER),
                follow_symlinks=False,
            )
        self._links.adjust(file.link_key, -1)
        self._names(parent)[name] = Kind.OTHER

    def _publish(self, temporary: bytes, parent: Directory, name: bytes) -> None:
        with self._kept_times(parent):
            os.rename(
                temporary,
                name,
                src_dir_fd=self._work.fd,
                dst_dir_fd=self._backing.directory_fd(parent, UPPER),
            )

    def _kept_times(self, directory: Directory) -> "_KeptTimes":
        """Copy-up is not a change that a program made: the times of the directory stay."""
        return _KeptTimes(self._backing.directory_fd(directory, UPPER))

    def copy_up_whole(self, top: Directory) -> None:
        """Copy a directory up with all below it, so that no lower layer shows through any more.

        The caller holds `top`. Descriptors of directories that it got before may be closed.
        """
        order: list[Directory] = []
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            if not directory.lowers:
                continue
            order.append(directory)
            self.copy_up_directory(directory)
            for name in self._tree.visible_names(directory):
                self._tree.trim()
                child, _ = self._tree.find(directory, name)
                if isinstance(child, Directory):
                    waiting.append(child)
                elif isinstance(child, File):
                    self.copy_up(child)
                    self.materialize(child, directory, name)
                    self._inodes.drop_unused(child)
        for directory in reversed(order):
            self._tree.trim()
            fd = self._backing.directory_fd(directory, UPPER)
            self._inodes.keep_number(os.fstat(fd), directory.number)
            make_opaque(fd)
            names = self._names(directory)
            for name in [name for name, kind in names.items() if kind is Kind.WHITEOUT]:
                os.unlink(name, dir_fd=fd)
                del names[name]
            self._backing.discard_fds(directory)
            directory.lowers = ()
            directory.lower_names = {}
            self._inodes.drop_unused(directory)

    def _names(self, directory: Directory) -> dict[bytes, Kind]:
        return self._tree.names(directory)[0]


class _KeptTimes:
    """Gives a directory its times back at the end of a with statement."""

    def __init__(self, fd: int) -> None:
        self._path = descriptor_path(fd)

    def __enter__(self) -> None:
        self._status = os.stat(self._path)

    def __exit__(self, *_: object) -> None:
        os.utime(self._path, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))
