"""Owner and mode: how programs change them, and when a write takes set-id bits away.

The rules are the kernel's (notify_change, file_remove_privs); where owner and mode are stored,
`ownership` says. Never decides whether a program may: the kernel does. Called by `overlay`.
"""

import os
import stat
from typing import Final, NamedTuple

from fuse_overlay.inodes import File, Inode
from fuse_overlay.ownership import Ownership
from fuse_overlay.tree import Tree

_CAPABILITY: Final = b"security.capability"
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


class Privileges(NamedTuple):
    """What a write would take away: the mode, if it has set-id bits, and the capability."""

    mode: int | None
    capability: bytes | None


class Permissions:
    """Owners and modes of the inodes of `tree`, which must be upper ones."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._backing = tree.backing
        self.changed: set[int] = set()
        """Inodes that a write has taken set-id bits from; whoever tells the kernel clears it."""

    def change(self, inode: Inode, mode: int | None, uid: int | None, gid: int | None) -> None:
        """Do chown(2), then chmod(2), of what is not None. Raises OSError."""
        owners = self._tree.owners
        if owners is not None and owners.attribute is not None:
            before = self._tree.attributes(inode)
            if owners.in_attribute(before.mode):
                self._store(owners, inode, mode, uid, gid)
                return
            uid = None if uid == before.uid else uid
            gid = None if gid == before.gid else gid
        if owners is not None:
            uid, gid = owners.stored(uid, gid)
        path, follow = self._backing.handle(inode)
        if uid is not None or gid is not None:
            ids = [-1 if number is None else number for number in (uid, gid)]
            try:
                os.chown(path, *ids, follow_symlinks=follow)
            except PermissionError:
                if owners is None or not owners.squashes:
                    raise
        if mode is not None:  # after chown, which clears set-id bits
            os.chmod(path, stat.S_IMODE(mode))
            if isinstance(inode, File) and mode & _SET_ID:
                inode.set_id = True

    def _store(
        self,
        owners: Ownership,
        inode: Inode,
        mode: int | None,
        uid: int | None,
        gid: int | None,
    ) -> None:
        before = self._tree.attributes(inode)
        kept = before.mode
        if (uid is not None or gid is not None) and not stat.S_ISDIR(kept):
            kept = _without_set_id(kept)
        path, follow = self._backing.handle(inode)
        owners.store(
            path,
            kept if mode is None else stat.S_IFMT(kept) | stat.S_IMODE(mode),
            before.uid if uid is None else uid,
            before.gid if gid is None else gid,
            follow=follow,
        )

    def drop(self, file: File, fd: int) -> None:
        """Take set-id bits away, as the kernel's setattr_should_drop_suidgid() does: set-group-id
        only where the group may execute.
        """
        before = self._tree.attributes(file)
        kept = _without_set_id(before.mode)
        if kept == before.mode:
            return
        owners = self._tree.owners
        if owners is not None and owners.attribute is not None:
            owners.store(fd, kept, before.uid, before.gid, follow=True)
        else:
            os.fchmod(fd, stat.S_IMODE(kept))
        self.changed.add(file.number)

    def held(self, file: File, fd: int) -> Privileges | None:
        """What a write that the kernel's cache makes would take away and must leave: the kernel has
        done so when the program wrote, or else it was through memory, which takes nothing away.

        Needs no system call for a file that has nothing of the kind.
        """
        mode = capability = None
        if file.set_id:
            mode = os.fstat(fd).st_mode
            file.set_id = bool(mode & _SET_ID)
        if not file.bare and _CAPABILITY in self._backing.listxattr(file):
            capability = os.getxattr(fd, _CAPABILITY)
        return Privileges(mode, capability) if file.set_id or capability is not None else None

    def give_back(self, fd: int, privileges: Privileges) -> None:
        """Restore, after the write, what was `held`, as far as we may."""
        try:
            if privileges.mode is not None:
                os.fchmod(fd, stat.S_IMODE(privileges.mode))
            if privileges.capability is not None:
                os.setxattr(fd, _CAPABILITY, privileges.capability)
        except PermissionError:
            pass


def _without_set_id(mode: int) -> int:
    return mode & ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
