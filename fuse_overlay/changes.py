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
from fuse_overlay.layers import OBJECT_FLAGS, descriptor_path, open_directory
from fuse_overlay.links import Links
from fuse_overlay.merge import UPPER, Kind, is_reserved
from fuse_overlay.syscalls import RENAME_EXCHANGE, renameat2
from fuse_overlay.tree import Tree
from fuse_overlay.workdir import WorkDirectory, make_opaque, make_whiteout

_DEFAULT_ACL = "system.posix_acl_default"

Maker = Callable[[int, bytes], None]
"""Makes a new object under a name in a directory descriptor."""


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
        self, parent: Directory, name: bytes, mode: int, uid: int, gid: int, make: Maker
    ) -> Inode:
        """Make an object of the type in `mode` for a user, as the kernel's inode_init_owner() does.

        `make` makes it; owner and set-id bits are given to it here. Returns its inode.
        Raises OSError: EEXIST, EINVAL for a name that would be a whiteout, ENOENT in a removed
        directory.
        """
        self._check_absent(parent, name)
        above = self._backing.status(parent)
        if above.st_mode & stat.S_ISGID:
            gid = above.st_gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID

        def make_owned(directory: int, new: bytes) -> None:
            make(directory, new)
            try:
                _give(directory, new, mode, uid, gid)
            except BaseException:
                (os.rmdir if stat.S_ISDIR(mode) else os.unlink)(new, dir_fd=directory)
                raise

        inode: Inode
        if stat.S_ISDIR(mode):
            status = self._appear(parent, name, Kind.DIRECTORY, make_owned)
            inode = self.tree.new_directory(status)
        else:
            status = self._appear(parent, name, Kind.OTHER, make_owned)
            inode = self.tree.new_file(UPPER, status)
        self._inodes.attach(inode, parent, name)
        return inode

    def _appear(self, parent: Directory, name: bytes, kind: Kind, make: Maker) -> os.stat_result:
        """Let `make` make what is to appear as `name`, over a whiteout if there is one.

        Returns its status.
        """
        self.copier.copy_up_directory(parent)
        names = self._names(parent)
        target = self._backing.directory_fd(parent, UPPER)
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
        """Give a file one more name. Raises OSError as `make` does."""
        self._check_absent(parent, name)
        self.copier.copy_up(file)
        source, source_name = self._backing.location(file)

        def make(directory: int, new: bytes) -> None:
            os.link(
                source_name, new, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False
            )

        status = self._appear(parent, name, Kind.OTHER, make)
        self._inodes.add_key(file, (UPPER, status.st_dev, status.st_ino))
        self._inodes.attach(file, parent, name)

    def _check_absent(self, parent: Directory, name: bytes) -> None:
        if is_reserved(name):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        if parent.removed:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        try:
            inode, _ = self.tree.find(parent, name)
        except FileNotFoundError:
            return
        self._inodes.drop_unused(inode)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)

    # Removal

    def unlink(self, parent: Directory, name: bytes) -> None:
        """Remove a name of a file. Lower data is never copied for it."""
        file, _ = self.tree.find(parent, name)
        assert isinstance(file, File)
        self.copier.copy_up_directory(parent)
        kept = self.keep(file)
        try:
            in_upper = self._hide(parent, name)
        except BaseException:
            os.close(kept)
            raise
        self.lose_name(file, parent, name, kept, in_upper=in_upper)

    def rmdir(self, parent: Directory, name: bytes) -> None:
        """Remove a directory that shows nothing. Raises OSError(ENOTEMPTY)."""
        directory, _ = self.tree.find(parent, name)
        assert isinstance(directory, Directory)
        if self.tree.visible_names(directory):
            self._inodes.drop_unused(directory)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
        self.copier.copy_up_directory(parent)
        kept = self.keep(directory)
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

    def lose_name(
        self, file: File, parent: Directory, name: bytes, kept: int, *, in_upper: bool
    ) -> None:
        """Book that a name of a file has gone.

        `kept` is an O_PATH descriptor of the file and taken over.
        """
        self._inodes.detach(file, parent, name)
        if file.layer != UPPER:
            file.lost_names += 1
        elif file.link_key is not None and not in_upper:
            self._links.adjust(file.link_key, -1)
        status = os.fstat(kept)
        if self.tree.links(file, status) <= 0:
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
            if file.descriptor >= 0 or file.fd >= 0:
                os.close(kept)
                kept = file.fd
            if file.descriptor < 0:
                file.descriptor = kept
        self._inodes.drop_unused(file)

    def lose_directory(self, directory: Directory, kept: int) -> None:
        """Book that a directory has gone; `kept` is an O_PATH descriptor of it and taken over."""
        assert directory.parent is not None
        self._backing.discard_fds(directory)
        if directory.in_upper:
            self._inodes.release_number(os.fstat(kept))
        self._inodes.detach(directory, directory.parent, directory.name)
        directory.removed = True
        directory.descriptor = kept
        self._inodes.drop_unused(directory)

    def keep(self, inode: Inode | None) -> int:
        """A descriptor for `lose_name` or `lose_directory`. Raises OSError(ENFILE)."""
        if isinstance(inode, File):
            return self._backing.keep(self._backing.open_path(inode))
        if isinstance(inode, Directory):
            return self._backing.keep(os.dup(self._backing.directory_fd(inode, inode.top)))
        return -1

    def _names(self, directory: Directory) -> dict[bytes, Kind]:
        return self.tree.names(directory)[0]


def _give(directory: int, name: bytes, mode: int, uid: int, gid: int) -> None:
    """Give an object just made its owner and the mode bits that making it does not set."""
    fd = os.open(name, OBJECT_FLAGS, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (uid, gid):
            os.chown(descriptor_path(fd), uid, gid)
        if special := mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
            os.chmod(descriptor_path(fd), stat.S_IMODE(status.st_mode) | special)
    finally:
        os.close(fd)


def _default_acl(directory: int) -> bytes | None:
    try:
        return os.getxattr(descriptor_path(directory), _DEFAULT_ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
