"""Makes and removes names in the upper directory: creation, hard links, whiteouts, removal.

Each change appears in one step, made before in the work directory where it takes several; a
kill at any instant leaves the state before or after. Called by `overlay` and `rename`.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fuse_overlay.copyup import Copier
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.layers import descriptor_path, open_directory
from fuse_overlay.links import Links, link_key
from fuse_overlay.merge import UPPER, Kind, is_reserved
from fuse_overlay.syscalls import RENAME_EXCHANGE, renameat2
from fuse_overlay.tree import Tree
from fuse_overlay.workdir import WorkDirectory, make_opaque

_DEFAULT_ACL = b"system.posix_acl_default"

Maker = Callable[[int, bytes, int], int]
"""Makes a new object under a name in a directory descriptor, with a mode. Returns a descriptor of
it, which may be O_PATH, or -1."""


class Changes:
    """The changes that can be made to the names of `tree`."""

    def __init__(self, tree: Tree, work: WorkDirectory, links: Links, copier: Copier) -> None:
        self.tree = tree
        self.copier = copier
        self._backing = tree.backing
        self._inodes = tree.inodes
        self._work = work
        self._links = links

    def make(
        self,
        parent: Directory,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        umask: int,
        make: Maker,
    ) -> tuple[Inode, os.stat_result]:
        """Make an object of the type in `mode` for a user, as the kernel's inode_init_owner() does.

        `make` makes it; owner and set-id bits are given to it here. `umask` counts where the parent
        has no default ACL, which the file system of the upper directory applies by itself. Returns
        its inode and status. Raises OSError: EEXIST, EINVAL for a name that would be a whiteout,
        ENOENT in a removed directory.
        """
        self._check_absent(parent, name)
        self.copier.copy_up_directory(parent)
        self.tree.check_room(stat.S_ISDIR(mode) or stat.S_ISLNK(mode), 1)
        mode, gid, acl = self._inherited(parent, mode, gid, umask)
        owners = self.tree.owners
        is_directory = stat.S_ISDIR(mode)
        kind = Kind.DIRECTORY if is_directory else Kind.OTHER
        fd = -1

        def make_owned(directory: int, new: bytes) -> os.stat_result:
            nonlocal fd
            fd = make(directory, new, mode if owners is None else owners.backing_mode(mode))
            try:
                if owners is not None:
                    path = b"/proc/self/fd/%d/%b" % (directory, new)
                    owners.store(path, mode, uid, gid, follow=False)
                    return os.stat(new, dir_fd=directory, follow_symlinks=False)
                return _give(directory, new, fd, mode, uid, gid)
            except BaseException:
                (os.rmdir if is_directory else os.unlink)(new, dir_fd=directory)
                raise

        try:
            status = self._appear(parent, name, kind, make_owned, acl)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        inode: Inode
        if is_directory:
            inode = self.tree.new_directory(status)
        else:
            inode = file = self.tree.new_file(UPPER, status)
            if fd >= 0:
                self._backing.opened(file, fd, writable=True)
        inode.bare = acl is None or None
        self._inodes.attach(inode, parent, name)
        self.tree.appeared(inode)
        self.tree.changed(parent)
        return inode, status

    def make_unnamed(self, parent: Directory, mode: int, uid: int, gid: int, umask: int) -> File:
        """Make a file without a name, as O_TMPFILE does. Raises OSError as `make`."""
        if parent.removed:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.copier.copy_up_directory(parent)
        self.tree.check_room(0, 1)
        mode, gid, acl = self._inherited(parent, mode, gid, umask)
        owners = self.tree.owners
        directory = self._backing.directory_fd(parent, UPPER)
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        backing_mode = stat.S_IMODE(mode) if owners is None else owners.backing_mode(mode)
        fd = os.open(b"/proc/self/fd/%d" % directory, flags, backing_mode)
        try:
            if owners is None:
                status = _give(directory, b"", fd, mode, uid, gid)
            else:
                owners.store(fd, mode, uid, gid, follow=True)
                status = os.fstat(fd)
            kept = self._backing.keep_fd(fd)
        except BaseException:
            os.close(fd)
            raise
        file = self.tree.new_file(UPPER, status)
        file.descriptor = kept
        file.bare = acl is None or None
        self.tree.appeared(file)
        self._backing.opened(file, fd, writable=True)
        return file

    def _inherited(
        self, parent: Directory, mode: int, gid: int, umask: int
    ) -> tuple[int, int, bytes | None]:
        """Mode and group of a new object in a directory, and the default ACL that it inherits."""
        acl = self._default_acl(parent)
        if acl is None:
            mode &= ~umask
        above = self.tree.attributes(parent)
        if above.mode & stat.S_ISGID:
            gid = above.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        return mode, gid, acl

    def _default_acl(self, directory: Directory) -> bytes | None:
        """The default ACL of a directory, which new objects in it inherit."""
        if directory.bare:
            return None
        try:
            return self._backing.getxattr(directory, _DEFAULT_ACL)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return None
            raise

    def _appear(
        self,
        parent: Directory,
        name: bytes,
        kind: Kind,
        make: Callable[[int, bytes], os.stat_result],
        acl: bytes | None,
    ) -> os.stat_result:
        """Let `make` make what is to appear as `name`, over a whiteout if there is one.

        `acl`: what a directory must have as its default ACL for `make` to make it there. Returns
        the status of what was made.
        """
        target = self._backing.directory_fd(parent, UPPER)
        if self._names(parent).get(name) is Kind.WHITEOUT:
            with self._staging(acl) as (directory, temporary):
                status = make(directory, temporary)
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
            status = make(target, name)
        parent.set_upper(name, kind)
        return status

    @contextmanager
    def _staging(self, acl: bytes | None) -> Iterator[tuple[int, bytes]]:
        """A place, (directory, name), to make what is to appear elsewhere, cleared at the end.

        A new object inherits the default ACL of the directory that it is made in, so one with `acl`
        is made where needed.
        """
        temporary = self._work.temporary()
        try:
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
        """Give a file one more name. Raises OSError as `make` does."""
        self._check_absent(parent, name)
        self.copier.copy_up(file)
        self.copier.copy_up_directory(parent)
        self.tree.check_room()
        unnamed = file.descriptor >= 0
        if unnamed:
            source, source_name = -1, os.fsencode(descriptor_path(file.descriptor))
        else:
            source, source_name = self._backing.location(file)

        def make(directory: int, new: bytes) -> os.stat_result:
            os.link(
                source_name,
                new,
                src_dir_fd=None if unnamed else source,
                dst_dir_fd=directory,
                follow_symlinks=unnamed,
            )
            return os.stat(new, dir_fd=directory, follow_symlinks=False)

        status = self._appear(parent, name, Kind.OTHER, make, None)
        self._inodes.add_key(file, (UPPER, status.st_dev, status.st_ino))
        self._inodes.attach(file, parent, name)
        if unnamed:
            os.close(file.descriptor)
            file.descriptor = -1
        self.tree.changed(parent)

    def _check_absent(self, parent: Directory, name: bytes) -> None:
        if is_reserved(name):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        if parent.removed:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if self.tree.shows(parent, name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)

    # Removal

    def unlink(self, parent: Directory, name: bytes) -> None:
        """Remove a name of a file. Lower data is never copied for it."""
        file = parent.children.get(name) or self.tree.find(parent, name)[0]
        assert isinstance(file, File)
        self.copier.copy_up_directory(parent)
        kept = self._backing.keep(file)
        try:
            in_upper = self._hide(parent, name)
        except BaseException:
            os.close(kept)
            raise
        self.lose_name(file, parent, name, kept, in_upper=in_upper)

    def rmdir(self, parent: Directory, name: bytes) -> None:
        """Remove a directory that shows nothing. Raises OSError(ENOTEMPTY)."""
        directory = parent.children.get(name) or self.tree.find(parent, name)[0]
        assert isinstance(directory, Directory)
        if self.tree.visible_names(directory):
            self._inodes.drop_unused(directory)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
        self.copier.copy_up_directory(parent)
        kept = self._backing.keep(directory)
        try:
            self._hide(parent, name)
        except BaseException:
            os.close(kept)
            raise
        self.lose_directory(directory, kept)

    def _hide(self, parent: Directory, name: bytes) -> bool:
        """Make a name vanish in one step: by a whiteout if a lower layer has it.

        Returns whether the upper layer had it.
        """
        upper, lower = self.tree.names(parent)
        target = self._backing.directory_fd(parent, UPPER)
        kind = upper.get(name)
        if kind is None:
            self._work.whiteout(target, name)
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
        parent.set_upper(name, Kind.WHITEOUT if name in lower else None)
        self.tree.changed(parent)
        return kind is not None

    def lose_name(
        self, file: File, parent: Directory, name: bytes, kept: int, *, in_upper: bool
    ) -> None:
        """Book that a name of a file has gone.

        `kept` is a descriptor of the file and taken over.
        """
        self._inodes.detach(file, parent, name)
        status = os.fstat(kept)
        if not file.in_upper:
            file.lost_names += 1
            if status.st_nlink > 1:
                self._links.lose(link_key(file.layer, status), self._work)
        elif file.link_key is not None and not in_upper:
            self._links.adjust(file.link_key, -1)
        if self.tree.links(file, status) <= 0:
            self._inodes.drop_keys(file)
            if not file.in_upper:
                self._links.forget_lost(link_key(file.layer, status))
            if file.link_key is not None:
                self._links.remove(file.link_key)
                file.link_key = None
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

    def lose_directory(self, directory: Directory, kept: int) -> None:
        """Book that a directory has gone; `kept` is an O_PATH descriptor of it and taken over."""
        assert directory.parent is not None
        self._backing.discard_fds(directory)
        self._inodes.detach(directory, directory.parent, directory.name)
        directory.removed = True
        directory.attributes = None
        directory.descriptor = kept
        self._inodes.drop_unused(directory)

    def _names(self, directory: Directory) -> dict[bytes, Kind]:
        return self.tree.names(directory)[0]


def _give(directory: int, name: bytes, fd: int, mode: int, uid: int, gid: int) -> os.stat_result:
    """Give an object just made, `fd` or by name, its owner and the mode bits that making it does
    not set. Returns its status.
    """
    status = os.fstat(fd) if fd >= 0 else os.stat(name, dir_fd=directory, follow_symlinks=False)
    special = mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX) & ~status.st_mode
    if (status.st_uid, status.st_gid) == (uid, gid) and not special:
        return status
    path: int | bytes = fd if fd >= 0 else b"/proc/self/fd/%d/%b" % (directory, name)
    os.chown(path, uid, gid, follow_symlinks=fd >= 0)
    if mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        os.chmod(path, stat.S_IMODE(status.st_mode) | mode & 0o7000)
    return os.stat(path, follow_symlinks=fd >= 0)
