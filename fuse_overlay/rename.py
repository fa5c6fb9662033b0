"""Rename and exchange, of directories with lower parts too.

A directory that has a lower part is copied up whole first: redirects would make an upper directory
that the kernel's overlayfs with `userxattr` refuses. Called by `overlay`.
"""

import errno
import os

from fuse_overlay.changes import Changes
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.merge import UPPER, Kind, is_reserved
from fuse_overlay.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2
from fuse_overlay.workdir import empty, make_opaque


class Rename:
    """Moves names of the tree that `changes` works on."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._copier = changes.copier
        self._tree = changes.tree
        self._backing = self._tree.backing
        self._inodes = self._tree.inodes

    def rename(
        self, parent: Directory, name: bytes, new_parent: Directory, new_name: bytes, flags: int
    ) -> None:
        """Rename as renameat2(2), with NOREPLACE or EXCHANGE.

        The caller has checked that types agree and that no directory gets into itself.
        """
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or is_reserved(new_name):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if new_parent.removed:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        inode, _ = self._tree.find(parent, name)
        with self._inodes.held(inode):
            try:
                replaced: Inode | None = self._tree.find(new_parent, new_name)[0]
            except FileNotFoundError:
                replaced = None
            if replaced is None:
                if flags & RENAME_EXCHANGE:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), new_name)
                self._move(inode, parent, name, None, new_parent, new_name)
                return
            with self._inodes.held(replaced):
                if flags & RENAME_NOREPLACE:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
                if flags & RENAME_EXCHANGE:
                    self._exchange(inode, parent, name, replaced, new_parent, new_name)
                elif replaced is not inode:
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
        self._copier.copy_up_directory(new_parent)
        self._prepare(inode, parent, name)
        source = self._backing.directory_fd(parent, UPPER)
        target = self._backing.directory_fd(new_parent, UPPER)
        _, lower = self._tree.names(parent)
        new_upper, new_lower = self._tree.names(new_parent)
        kind = Kind.DIRECTORY if isinstance(inode, Directory) else Kind.OTHER
        if isinstance(inode, Directory) and new_name in new_lower:
            make_opaque(self._backing.directory_fd(inode, UPPER))
        if replaced is None:
            self._tree.check_room()
        kept = -1 if replaced is None else self._backing.keep(replaced)
        before = new_upper.get(new_name)
        try:
            if before is Kind.DIRECTORY and isinstance(replaced, Directory):
                # It holds whiteouts at most. What they hide must not show when they go.
                fd = self._backing.directory_fd(replaced, UPPER)
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
        parent.set_upper(name, Kind.WHITEOUT if name in lower else None)
        new_parent.set_upper(new_name, kind)
        if isinstance(replaced, File):
            self._changes.lose_name(
                replaced, new_parent, new_name, kept, in_upper=before is Kind.OTHER
            )
        elif isinstance(replaced, Directory):
            self._changes.lose_directory(replaced, kept)
        self._inodes.detach(inode, parent, name)
        self._inodes.attach(inode, new_parent, new_name)
        self._tree.changed(parent)
        self._tree.changed(new_parent)

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
            make_opaque(self._backing.directory_fd(one, UPPER))
        if isinstance(other, Directory) and name in lower:
            make_opaque(self._backing.directory_fd(other, UPPER))
        renameat2(
            self._backing.directory_fd(parent, UPPER),
            name,
            self._backing.directory_fd(other_parent, UPPER),
            other_name,
            RENAME_EXCHANGE,
        )
        kind, other_kind = names[name], other_names[other_name]
        parent.set_upper(name, other_kind)
        other_parent.set_upper(other_name, kind)
        self._inodes.detach(one, parent, name)
        self._inodes.detach(other, other_parent, other_name)
        self._inodes.attach(one, other_parent, other_name)
        self._inodes.attach(other, parent, name)

    def _prepare(self, inode: Inode, parent: Directory, name: bytes) -> None:
        """Give what is to be renamed an upper entry of its own that nothing shows through."""
        self._copier.copy_up_directory(parent)
        if isinstance(inode, Directory):
            self._copier.copy_up_whole(inode)
        elif isinstance(inode, File):
            self._copier.copy_up(inode)
            self._copier.materialize(inode, parent, name)
