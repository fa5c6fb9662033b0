"""Answers the kernel's requests from an Overlay: takes each apart, calls one operation, and packs
what it returned.

Never decides what the file system means, and does no I/O of its own. A method's name is the
opcode's. Called by `connection`.
"""

# ruff: noqa: ARG002 - every handler is called alike

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Union

from fuse_overlay import abi
from fuse_overlay.abi import Opcode
from fuse_overlay.overlay import Overlay

if TYPE_CHECKING:
    from concurrent.futures import Future

Reply = Union[bytes, list[bytes], "Future[None]", None]
"""A payload, in one piece or several; a result that is still to come (FSYNC); or no reply at all
(FORGET)."""

Handler = Callable[[int, int, int, memoryview], Reply]
"""Takes nodeid, uid, gid and the request's body."""

_EMPTY: Final = b""
_MAX_READDIR: Final = 1 << 20
_MAX_COPY: Final = 64 << 20
"""Bytes copied for one COPY_FILE_RANGE, so that others need not wait for long."""


class Requests:
    """The handlers, by opcode in `handlers`, for `overlay`.

    An opcode without a handler is one that the kernel is to serve by itself, or to forget: it is
    answered ENOSYS. With OPEN, OPENDIR and FLUSH the kernel then never asks again, and so files are
    opened and closed without us (Linux 5.1 for directories, 3.16 for files).
    """

    def __init__(self, overlay: Overlay, *, writeback: bool) -> None:
        self._overlay = overlay
        self._writeback = writeback
        self.handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.FORGET: self.forget,
            Opcode.BATCH_FORGET: self.batch_forget,
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.READLINK: self.readlink,
            Opcode.SYMLINK: self.symlink,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
            Opcode.LINK: self.link,
            Opcode.TMPFILE: self.tmpfile,
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.FSYNC: self.fsync,
            Opcode.FSYNCDIR: self.fsyncdir,
            Opcode.FALLOCATE: self.fallocate,
            Opcode.COPY_FILE_RANGE: self.copy_file_range,
            Opcode.STATFS: self.statfs,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.SETXATTR: self.setxattr,
            Opcode.REMOVEXATTR: self.removexattr,
            Opcode.READDIRPLUS: self.readdirplus,
        }
        if not writeback:
            # The kernel asks without writing back first: what it holds would look like a hole.
            self.handlers[Opcode.LSEEK] = self.lseek

    # Inodes

    def lookup(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        attributes = self._overlay.lookup(nodeid, bytes(body[:-1]))
        return abi.ABSENT if attributes is None else abi.entry_out(attributes)

    def forget(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        self._overlay.forget(nodeid, *abi.FORGET_IN.unpack_from(body))
        return None

    def batch_forget(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        for number, count in abi.FORGET_ONE.iter_unpack(body[abi.BATCH_FORGET_IN.size :]):
            self._overlay.forget(number, count)
        return None

    def getattr(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        return abi.attr_out(self._overlay.getattr(nodeid))

    def setattr(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        (valid, _, size, _, atime, mtime, _, atimensec, mtimensec, _, mode, _, owner, group, _) = (
            abi.SETATTR_IN.unpack_from(body)
        )
        atime_ns = mtime_ns = None
        if valid & (abi.FATTR_ATIME | abi.FATTR_MTIME):
            now = time.time_ns() if valid & (abi.FATTR_ATIME_NOW | abi.FATTR_MTIME_NOW) else 0
            if valid & abi.FATTR_ATIME:
                given = atime * 10**9 + atimensec
                atime_ns = now if valid & abi.FATTR_ATIME_NOW else given
            if valid & abi.FATTR_MTIME:
                given = mtime * 10**9 + mtimensec
                mtime_ns = now if valid & abi.FATTR_MTIME_NOW else given
        return abi.attr_out(
            self._overlay.setattr(
                nodeid,
                mode=mode if valid & abi.FATTR_MODE else None,
                uid=owner if valid & abi.FATTR_UID else None,
                gid=group if valid & abi.FATTR_GID else None,
                size=size if valid & abi.FATTR_SIZE else None,
                atime_ns=atime_ns,
                mtime_ns=mtime_ns,
                kill_suidgid=bool(valid & abi.FATTR_KILL_SUIDGID),
            )
        )

    def readlink(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        return self._overlay.readlink(nodeid)

    def statfs(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        status = self._overlay.statfs()
        return abi.STATFS_OUT.pack(
            status.f_blocks,
            status.f_bfree,
            status.f_bavail,
            status.f_files,
            status.f_ffree,
            status.f_bsize,
            status.f_namemax,
            status.f_frsize,
            0,
        )

    # Names

    def mknod(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        mode, device, umask, _ = abi.MKNOD_IN.unpack_from(body)
        name = bytes(body[abi.MKNOD_IN.size : -1])
        device = device and abi.decode_device(device)
        return abi.entry_out(self._overlay.mknod(nodeid, name, mode, device, uid, gid, umask))

    def mkdir(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        mode, umask = abi.MKDIR_IN.unpack_from(body)
        name = bytes(body[abi.MKDIR_IN.size : -1])
        return abi.entry_out(self._overlay.mkdir(nodeid, name, mode, uid, gid, umask))

    def symlink(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        name, target = bytes(body[:-1]).split(b"\0")
        return abi.entry_out(self._overlay.symlink(nodeid, name, target, uid, gid))

    def link(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        (number,) = abi.LINK_IN.unpack_from(body)
        return abi.entry_out(self._overlay.link(number, nodeid, bytes(body[abi.LINK_IN.size : -1])))

    def tmpfile(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, mode, umask, _ = abi.CREATE_IN.unpack_from(body)
        attributes = self._overlay.tmpfile(nodeid, mode, uid, gid, umask)
        return abi.entry_out(attributes) + abi.OPEN_OUT.pack(0, 0, 0)

    def unlink(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        self._overlay.unlink(nodeid, bytes(body[:-1]))
        return _EMPTY

    def rmdir(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        self._overlay.rmdir(nodeid, bytes(body[:-1]))
        return _EMPTY

    def rename(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        (new_parent,) = abi.RENAME_IN.unpack_from(body)
        return self._rename(nodeid, new_parent, 0, body[abi.RENAME_IN.size : -1])

    def rename2(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        new_parent, flags, _ = abi.RENAME2_IN.unpack_from(body)
        return self._rename(nodeid, new_parent, flags, body[abi.RENAME2_IN.size : -1])

    def _rename(self, parent: int, new_parent: int, flags: int, names: memoryview) -> Reply:
        name, new_name = bytes(names).split(b"\0")
        self._overlay.rename(parent, name, new_parent, new_name, flags)
        return _EMPTY

    # Files

    def read(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, offset, size, _, _, _, _ = abi.READ_IN.unpack_from(body)
        return self._overlay.read(nodeid, offset, size)

    def write(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, offset, size, flags, _, _, _ = abi.WRITE_IN.unpack_from(body)
        start = abi.WRITE_IN.size
        written = self._overlay.write(
            nodeid,
            offset,
            body[start : start + size],
            kill_suidgid=bool(flags & abi.WRITE_KILL_SUIDGID),
            cached=bool(flags & abi.WRITE_CACHE),
            keep_mtime=self._writeback and bool(flags & abi.WRITE_CACHE),
        )
        return abi.WRITE_OUT.pack(written)

    def fsync(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, flags, _ = abi.FSYNC_IN.unpack_from(body)
        job = self._overlay.fsync(nodeid, data_only=bool(flags & abi.FSYNC_FDATASYNC))
        return _EMPTY if job is None else job

    def fallocate(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, offset, length, mode = abi.FALLOCATE_IN.unpack_from(body)
        # No flag says what the caller may do: only root keeps set-id bits.
        self._overlay.fallocate(nodeid, mode, offset, length, kill_suidgid=uid != 0)
        return _EMPTY

    def lseek(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, offset, whence = abi.LSEEK_IN.unpack_from(body)
        return abi.LSEEK_OUT.pack(self._overlay.lseek(nodeid, offset, whence))

    def copy_file_range(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, offset, target, _, target_offset, length, _ = abi.COPY_FILE_RANGE_IN.unpack_from(body)
        length = min(length, _MAX_COPY)
        return abi.WRITE_OUT.pack(
            self._overlay.copy_file_range(
                nodeid, offset, target, target_offset, length, kill_suidgid=uid != 0
            )
        )

    # Extended attributes

    def getxattr(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        size, _ = abi.GETXATTR_IN.unpack_from(body)
        name = bytes(body[abi.GETXATTR_IN.size : -1])
        return _fitting(self._overlay.getxattr(nodeid, name), size)

    def listxattr(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        size, _ = abi.GETXATTR_IN.unpack_from(body)
        names = self._overlay.listxattr(nodeid)
        return _fitting(b"".join(name + b"\0" for name in names), size)

    def setxattr(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        size, flags, more_flags = abi.SETXATTR_IN.unpack_from(body)
        end = len(body) - size
        self._overlay.setxattr(
            nodeid,
            bytes(body[abi.SETXATTR_IN.size : end - 1]),
            bytes(body[end:]),
            flags,
            kill_sgid=bool(more_flags & abi.SETXATTR_ACL_KILL_SGID),
        )
        return _EMPTY

    def removexattr(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        self._overlay.removexattr(nodeid, bytes(body[:-1]))
        return _EMPTY

    # Directories

    def readdirplus(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        _, offset, size, _, _, _, _ = abi.READ_IN.unpack_from(body)
        size = min(size, _MAX_READDIR)
        overlay = self._overlay
        entries: list[bytes] = []
        for name, attributes, after in overlay.readdir(nodeid, offset):
            shown = None if name in (b".", b"..") else attributes
            entry = abi.direntplus(
                shown, attributes.number, stat.S_IFMT(attributes.mode), name, after
            )
            size -= len(entry)
            if size < 0:
                break
            entries.append(entry)
            if shown is not None:
                overlay.reference(attributes.number)
        return entries

    def fsyncdir(self, nodeid: int, uid: int, gid: int, body: memoryview) -> Reply:
        job = self._overlay.fsyncdir(nodeid)
        return _EMPTY if job is None else job


def _fitting(value: bytes, size: int) -> bytes:
    """The answer to a question for at most `size` bytes, or (0) for how many there are."""
    if size == 0:
        return abi.GETXATTR_OUT.pack(len(value))
    if len(value) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value


def init(body: memoryview, *, writeback: bool, max_write: int) -> bytes | None:
    """Answer INIT: what of the kernel's abilities is used. None if its protocol is too old.

    ATOMIC_O_TRUNC stays off: without OPEN, O_TRUNC arrives as a SETATTR.
    """
    major, minor, readahead, offered = abi.INIT_IN.unpack_from(body)
    wanted = (
        abi.ASYNC_READ
        | abi.BIG_WRITES
        | abi.DONT_MASK
        | abi.DO_READDIRPLUS
        | abi.ASYNC_DIO
        | abi.NO_OPEN_SUPPORT
        | abi.PARALLEL_DIROPS
        | abi.POSIX_ACL
        | abi.MAX_PAGES
        | abi.CACHE_SYMLINKS
        | abi.NO_OPENDIR_SUPPORT
        | abi.HANDLE_KILLPRIV_V2
        | abi.SETXATTR_EXT
    )
    flags = (wanted | (abi.WRITEBACK_CACHE if writeback else 0)) & offered
    if major != abi.MAJOR or flags & wanted != wanted:
        return None
    return abi.INIT_OUT.pack(
        abi.MAJOR,
        min(minor, abi.MINOR),
        readahead,
        flags,
        _BACKGROUND,
        _BACKGROUND,
        max_write,
        1,
        max_write // _PAGE,
        0,
        0,
    )


_BACKGROUND: Final = 64
"""Requests for read-ahead and write-back that may wait at once."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
