"""Changes the overlay, by changing the upper directory: copy-up, whiteouts, creation, removal,
links, rename.

Each change appears in the upper directory in one step, made before in the work directory where it
takes several; a kill at any instant leaves the state before or after. Works on inodes that `tree`
found; called by `overlay`.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fuse_overlay.copyup import copy_data, copy_metadata
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.layers import OBJECT_FLAGS, descriptor_path, open_directory
from fuse_overlay.links import Links, link_key
from fuse_overlay.merge import OPAQUE_ATTRIBUTE, OPAQUE_MARKER, UPPER, Kind
from fuse_overlay.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from fuse_overlay.tree import Tree
from fuse_overlay.workdir import WorkDirectory, empty, make_whiteout

_DEFAULT_ACL = "system.posix_acl_default"

Maker = Callable[[int, bytes], None]
"""Makes a new object, complete with owner and mode, under a name in a directory descriptor."""


class Upper:
    """The writable side of `tree`. With `sync`, a copied file is on disk before it replaces the
    lower one.
    """

    def __init__(self, tree: Tree, work: WorkDirectory, links: Links, *, sync: bool) -> None:
        self._tree = tree
        self._inodes = tree.inodes
        self._work = work
        self._links = links
        self._sync = sync

    # Copy-up

    def copy_up(self, inode: Inode, size: int | None = None) -> None:
        """Give an inode and its parents an upper copy; of a file's data, the first `size` bytes
        (None: all).
        """
        if isinstance(inode, Directory):
            self._copy_up_directories(inode)
        elif isinstance(inode, File) and inode.layer != UPPER:
            self._copy_up_file(inode, size)

    def _copy_up_directories(self, directory: Directory) -> None:
        missing: list[Directory] = []
        while not directory.in_upper:
            if directory.removed or directory.parent is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            missing.append(directory)
            directory = directory.parent
        for directory in reversed(missing):
            assert directory.parent is not None
            with self._tree.path(directory) as source:
                temporary = self._work.temporary()
                try:
                    os.mkdir(temporary, 0o700, dir_fd=self._work.fd)
                    self._finish_copy(temporary, source, os.stat(source))
                    self._publish(temporary, directory.parent, directory.name)
                except BaseException:
                    self._work.remove(temporary)
                    raise
            self._names(directory.parent)[directory.name] = Kind.DIRECTORY
            directory.in_upper = True

    def _copy_up_file(self, file: File, size: int | None) -> None:
        for parent, _ in file.names:
            self._copy_up_directories(parent)
        status = self._tree.status(file)
        links = self._tree.links(file, status)
        temporary = self._work.temporary()
        try:
            self._copy(file, status, temporary, size)
            copy = os.open(temporary, OBJECT_FLAGS, dir_fd=self._work.fd)
        except BaseException:
            self._work.remove(temporary)
            raise
        try:
            self._place_copy(file, status, temporary, links)
            self._inodes.keep_number(os.fstat(copy), file.number)
            file.layer = UPPER
            file.lost_names = 0
            if file.descriptor >= 0:
                file.descriptor = os.dup2(copy, file.descriptor, inheritable=False)
            if file.fd >= 0:  # programs that have it open go on with the copy
                flags = os.O_RDWR if file.writable else os.O_RDONLY
                data = os.open(descriptor_path(copy), flags | os.O_CLOEXEC)
                os.dup2(data, file.fd, inheritable=False)
                os.close(data)
        finally:
            os.close(copy)

    def _copy(self, file: File, status: os.stat_result, temporary: bytes, size: int | None) -> None:
        work = self._work.fd
        with self._tree.path(file) as source:
            if stat.S_ISREG(status.st_mode):
                target = os.open(
                    temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=work
                )
                try:
                    data = self._tree.open_data(file, os.O_RDONLY)
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
                os.symlink(self._tree.readlink(file), temporary, dir_fd=work)
            else:
                os.mknod(temporary, status.st_mode, status.st_rdev, dir_fd=work)
            self._finish_copy(temporary, source, status)

    def _finish_copy(self, temporary: bytes, source: str, status: os.stat_result) -> None:
        fd = os.open(temporary, OBJECT_FLAGS, dir_fd=self._work.fd)
        try:
            copy_metadata(source, descriptor_path(fd), status)
        finally:
            os.close(fd)

    def _place_copy(self, file: File, status: os.stat_result, temporary: bytes, links: int) -> None:
        """Let a finished copy take the place of the lower file under its known names."""
        if not file.names:
            os.unlink(temporary, dir_fd=self._work.fd)
        elif links == 1:
            parent, name = file.names[0]
            self._publish(temporary, parent, name)
            self._names(parent)[name] = Kind.OTHER
        else:
            key = link_key(file.layer, status)
            self._links.add(self._work.fd, temporary, key, links - 1)
            copy = os.stat(self._links.name(key), dir_fd=self._links.fd, follow_symlinks=False)
            self._inodes.add_key(file, (UPPER, copy.st_dev, copy.st_ino))
            file.link_key = key
            file.layer = UPPER
            for parent, name in file.names:
                self._materialize(file, parent, name)

    def _materialize(self, file: File, parent: Directory, name: bytes) -> None:
        """Give a name of a copied file, so far only reached through `links`, its own entry in the
        upper directory.
        """
        if file.link_key is None or self._names(parent).get(name) is Kind.OTHER:
            return
        source = self._links.name(file.link_key)
        with self._kept_times(parent):
            os.link(
                source,
                name,
                src_dir_fd=self._links.fd,
                dst_dir_fd=self._tree.directory_fd(parent, UPPER),
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
                dst_dir_fd=self._tree.directory_fd(parent, UPPER),
            )

    def _kept_times(self, directory: Directory) -> "_KeptTimes":
        """Copy-up is not a change that a program made: the times of the directory stay."""
        return _KeptTimes(self._tree.directory_fd(directory, UPPER))

    def copy_up_tree(self, top: Directory) -> None:
        """Copy a directory up with all that is below it, so that no lower layer shows through any
        more.
        """
        order: list[Directory] = []
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            if not directory.lowers:
                continue
            order.append(directory)
            self._copy_up_directories(directory)
            for name in self._tree.visible_names(directory):
                child, _ = self._tree.find(directory, name)
                if isinstance(child, Directory):
                    waiting.append(child)
                elif isinstance(child, File):
                    self.copy_up(child)
                    self._materialize(child, directory, name)
                    self._inodes.drop_unused(child)
        for directory in reversed(order):
            fd = self._tree.directory_fd(directory, UPPER)
            self._inodes.keep_number(os.fstat(fd), directory.number)
            make_opaque(fd)
            names = self._names(directory)
            for name in [name for name, kind in names.items() if kind is Kind.WHITEOUT]:
                os.unlink(name, dir_fd=fd)
                del names[name]
            self._tree.discard_fds(directory)
            directory.lowers = ()
            directory.lower_names = {}
            if directory is not top:
                self._inodes.drop_unused(directory)

    # Creation

    def make(self, parent: Directory, name: bytes, kind: Kind, make: Maker) -> os.stat_result:
        """Let `make` make an object that appears as `name`, over a whiteout if there is one.
        Returns its status.
        """
        self._copy_up_directories(parent)
        names = self._names(parent)
        target = self._tree.directory_fd(parent, UPPER)
        if names.get(name) is Kind.WHITEOUT:
            with self._staging(target) as (directory, temporary):
                make(directory, temporary)
                if kind is Kind.DIRECTORY:
                    fd = open_directory(temporary, directory)
                    try:
                        make_opaque(fd)
                    finally:
                        os.close(fd)
                    renameat2(directory, temporary, target, name, RENAME_EXCHANGE)
                else:
                    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=target)
        else:
            make(target, name)
        names[name] = kind
        return os.stat(name, dir_fd=target, follow_symlinks=False)

    @contextmanager
    def _staging(self, parent: int) -> Iterator[tuple[int, bytes]]:
        """A place, (directory, name), to make what is to appear in `parent`, cleared at the end.

        A new object inherits the default ACL of the directory that it is made in, so one like that
        of `parent` is made where needed.
        """
        temporary = self._work.temporary()
        try:
            acl = _default_acl(parent)
            if acl is None:
                yield self._work.fd, temporary
                return
            os.mkdir(temporary, 0o700, dir_fd=self._work.fd)
            fd = open_directory(temporary, self._work.fd)
            try:
                os.setxattr(descriptor_path(fd), _DEFAULT_ACL, acl)
                yield fd, b"new"
            finally:
                os.close(fd)
        finally:
            self._work.remove(temporary)

    def link(self, file: File, parent: Directory, name: bytes) -> None:
        """Give a file one more name, which nothing has."""
        self.copy_up(file)
        source, source_name = self._tree.location(file)

        def make(directory: int, new: bytes) -> None:
            os.link(
                source_name, new, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False
            )

        status = self.make(parent, name, Kind.OTHER, make)
        self._inodes.add_key(file, (UPPER, status.st_dev, status.st_ino))
        self._inodes.attach(file, parent, name)

    # Removal

    def unlink(self, parent: Directory, name: bytes) -> None:
        """Remove a name of a file. Lower data is never copied for it."""
        file, _ = self._tree.find(parent, name)
        assert isinstance(file, File)
        self._copy_up_directories(parent)
        kept = self._tree.open_path(file)
        try:
            in_upper = self._hide(parent, name)
        except BaseException:
            os.close(kept)
            raise
        self._lose_name(file, parent, name, kept, in_upper=in_upper)

    def rmdir(self, parent: Directory, name: bytes) -> None:
        """Remove a directory that shows nothing. Raises OSError(ENOTEMPTY)."""
        directory, _ = self._tree.find(parent, name)
        assert isinstance(directory, Directory)
        if self._tree.visible_names(directory):
            self._inodes.drop_unused(directory)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
        self._copy_up_directories(parent)
        kept = os.dup(self._tree.directory_fd(directory, directory.top))
        try:
            self._hide(parent, name)
        except BaseException:
            os.close(kept)
            raise
        self._lose_directory(directory, kept)

    def _hide(self, parent: Directory, name: bytes) -> bool:
        """Make a name vanish in one step: by a whiteout if a lower layer has it. Returns if the
        upper layer had it.
        """
        upper, lower = self._tree.names(parent)
        target = self._tree.directory_fd(parent, UPPER)
        kind = upper.get(name)
        if kind is None:
            make_whiteout(target, name)
        elif name in lower:
            whiteout = self._work.whiteout()
            if kind is Kind.DIRECTORY:
                renameat2(self._work.fd, whiteout, target, name, RENAME_EXCHANGE)
                self._work.remove(whiteout)
            else:
                os.rename(whiteout, name, src_dir_fd=self._work.fd, dst_dir_fd=target)
        elif kind is Kind.DIRECTORY:
            temporary = self._work.temporary()
            os.rename(name, temporary, src_dir_fd=target, dst_dir_fd=self._work.fd)
            self._work.remove(temporary)
        else:
            os.unlink(name, dir_fd=target)
        if name in lower:
            upper[name] = Kind.WHITEOUT
        else:
            del upper[name]
        return kind is not None

    def _lose_name(
        self, file: File, parent: Directory, name: bytes, kept: int, *, in_upper: bool
    ) -> None:
        """Book that a name of a file has gone; `kept` is an O_PATH descriptor of the file and is
        taken over.
        """
        self._inodes.detach(file, parent, name)
        if file.layer != UPPER:
            file.lost_names += 1
        elif file.link_key is not None and not in_upper:
            self._links.adjust(file.link_key, -1)
        status = os.fstat(kept)
        if self._tree.links(file, status) <= 0:
            self._inodes.drop_keys(file)
            if file.link_key is not None:
                self._links.remove(file.link_key)
                file.link_key = None
            if file.layer == UPPER:
                self._inodes.release_number(status)
        elif file.names or file.link_key is not None:
            os.close(kept)
            kept = -1
        if kept >= 0:
            if file.descriptor >= 0:
                os.close(kept)
            else:
                file.descriptor = kept
        self._inodes.drop_unused(file)

    def _lose_directory(self, directory: Directory, kept: int) -> None:
        """Book that a directory has gone; `kept` is an O_PATH descriptor of it and taken over."""
        assert directory.parent is not None
        self._tree.discard_fds(directory)
        if directory.in_upper:
            self._inodes.release_number(os.fstat(kept))
        self._inodes.detach(directory, directory.parent, directory.name)
        directory.removed = True
        directory.descriptor = kept
        self._inodes.drop_unused(directory)

    # Rename

    def rename(
        self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes, flags: int
    ) -> None:
        """Rename as renameat2(2) with NOREPLACE or EXCHANGE. The kernel has checked types and
        loops.

        A directory that has a lower part is copied up whole first: redirects would make an upper
        directory that the kernel's overlayfs with `userxattr` refuses.
        """
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        inode, _ = self._tree.find(parent, name)
        try:
            replaced: Inode | None = self._tree.find(new_parent, new_name)[0]
        except FileNotFoundError:
            if flags & RENAME_EXCHANGE:
                raise
            replaced = None
        if replaced is not None and flags & RENAME_NOREPLACE:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
        if replaced is inode:
            return
        if flags & RENAME_EXCHANGE:
            assert replaced is not None
            self._exchange(inode, parent, name, replaced, new_parent, new_name)
        else:
            self._move(inode, parent, name, replaced, new_parent, new_name)

    def _move(
        self,
        inode: Inode,
        parent: Directory,
        name: bytes,
        replaced: Inode | None,
        new_parent: Directory,
        new_name: bytes,
    ) -> None:
        if isinstance(replaced, Directory) and self._tree.visible_names(replaced):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), new_name)
        self._copy_up_directories(new_parent)
        self._prepare(inode, parent, name)
        source = self._tree.directory_fd(parent, UPPER)
        target = self._tree.directory_fd(new_parent, UPPER)
        upper, lower = self._tree.names(parent)
        new_upper, new_lower = self._tree.names(new_parent)
        kind = Kind.DIRECTORY if isinstance(inode, Directory) else Kind.OTHER
        if isinstance(inode, Directory) and new_name in new_lower:
            make_opaque(self._tree.directory_fd(inode, UPPER))
        kept = self._keep(replaced)
        before = new_upper.get(new_name)
        try:
            if before is Kind.DIRECTORY and isinstance(replaced, Directory):
                # It holds whiteouts at most. What they hide must not show when they go.
                fd = self._tree.directory_fd(replaced, UPPER)
                if replaced.lowers:
                    make_opaque(fd)
                empty(fd)
            if before is Kind.WHITEOUT and kind is Kind.DIRECTORY:
                renameat2(source, name, target, new_name, RENAME_EXCHANGE)
                if name not in lower:
                    os.unlink(name, dir_fd=source)
            elif name in lower:
                renameat2(source, name, target, new_name, RENAME_WHITEOUT)
            else:
                os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        except BaseException:
            if kept >= 0:
                os.close(kept)
            raise
        if name in lower:
            upper[name] = Kind.WHITEOUT
        else:
            del upper[name]
        new_upper[new_name] = kind
        if isinstance(replaced, File):
            self._lose_name(replaced, new_parent, new_name, kept, in_upper=before is Kind.OTHER)
        elif isinstance(replaced, Directory):
            self._lose_directory(replaced, kept)
        self._inodes.detach(inode, parent, name)
        self._inodes.attach(inode, new_parent, new_name)

    def _exchange(
        self,
        one: Inode,
        parent: Directory,
        name: bytes,
        other: Inode,
        other_parent: Directory,
        other_name: bytes,
    ) -> None:
        self._prepare(one, parent, name)
        self._prepare(other, other_parent, other_name)
        names, lower = self._tree.names(parent)
        other_names, other_lower = self._tree.names(other_parent)
        if isinstance(one, Directory) and other_name in other_lower:
            make_opaque(self._tree.directory_fd(one, UPPER))
        if isinstance(other, Directory) and name in lower:
            make_opaque(self._tree.directory_fd(other, UPPER))
        renameat2(
            self._tree.directory_fd(parent, UPPER),
            name,
            self._tree.directory_fd(other_parent, UPPER),
            other_name,
            RENAME_EXCHANGE,
        )
        names[name], other_names[other_name] = other_names[other_name], names[name]
        self._inodes.detach(one, parent, name)
        self._inodes.detach(other, other_parent, other_name)
        self._inodes.attach(one, other_parent, other_name)
        self._inodes.attach(other, parent, name)

    def _prepare(self, inode: Inode, parent: Directory, name: bytes) -> None:
        """Give what is to be renamed an entry of its own in the upper directory that nothing shows
        through.
        """
        self._copy_up_directories(parent)
        if isinstance(inode, Directory):
            self.copy_up_tree(inode)
        elif isinstance(inode, File):
            self.copy_up(inode)
            self._materialize(inode, parent, name)

    def _keep(self, inode: Inode | None) -> int:
        if isinstance(inode, File):
            return self._tree.open_path(inode)
        if isinstance(inode, Directory):
            return os.dup(self._tree.directory_fd(inode, inode.top))
        return -1

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


def make_opaque(directory: int) -> None:
    """Mark an upper directory as hiding what is below."""
    try:
        os.setxattr(descriptor_path(directory), OPAQUE_ATTRIBUTE, b"y")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        os.close(
            os.open(OPAQUE_MARKER, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
        )


def _default_acl(directory: int) -> bytes | None:
    try:
        return os.getxattr(descriptor_path(directory), _DEFAULT_ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
