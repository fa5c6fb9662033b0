"""Speaks FUSE for an Overlay, through pyfuse3: each handler wraps one synchronous operation and
nothing more.

Never decides what the file system means. The handle of an open file or directory is its inode
number. Called by `pyfuse3_server`.
"""

# ruff: noqa: ARG002 - pyfuse3 decides on the arguments

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from typing import Any, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
)

from fuse_overlay.attributes import Attributes
from fuse_overlay.jobs import Pending
from fuse_overlay.overlay import Overlay

log = logging.getLogger(__name__)

_FOREVER = 365 * 86400
"""Seconds that the kernel may keep what we said: nobody else changes the layers."""

P = ParamSpec("P")
T = TypeVar("T")


def _answer(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let an exception be the errno of this request and no more."""

    @functools.wraps(handler)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            while True:
                try:
                    return await handler(*args, **kwargs)
                except Pending as pending:
                    await _done(pending.job)
        except FUSEError:
            raise
        except OSError as error:
            if error.errno is None:
                log.exception("%s failed", handler.__name__)
            raise FUSEError(error.errno or errno.EIO) from None
        except Exception:
            log.exception("%s failed", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return wrapped


async def _done(job: Future[None]) -> None:
    """Wait until a job has ended, however it did."""
    await trio.to_thread.run_sync(wait, (job,))


def _entry(attributes: Attributes) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = InodeT(attributes.number)
    entry.generation = 0
    entry.entry_timeout = _FOREVER
    entry.attr_timeout = _FOREVER
    entry.st_mode = pyfuse3.ModeT(attributes.mode)
    entry.st_nlink = attributes.links
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    status = attributes.status
    entry.st_rdev = status.st_rdev
    entry.st_size = status.st_size
    entry.st_blocks = status.st_blocks
    entry.st_blksize = status.st_blksize
    entry.st_atime_ns = status.st_atime_ns
    entry.st_mtime_ns = status.st_mtime_ns
    entry.st_ctime_ns = status.st_ctime_ns
    return entry


def _opened(number: int) -> FileInfo:
    return FileInfo(fh=FileHandleT(number), keep_cache=True)


class Operations(pyfuse3.Operations):
    """The handlers that pyfuse3 calls for `overlay`."""

    supports_dot_lookup = False
    enable_acl = True

    def __init__(self, overlay: Overlay) -> None:
        super().__init__()
        self._overlay = overlay

    @_answer
    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        attributes = self._overlay.lookup(parent_inode, name)
        if attributes is not None:
            return _entry(attributes)
        absent = EntryAttributes()
        absent.st_ino = InodeT(0)
        absent.entry_timeout = _FOREVER
        return absent

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for number, count in inode_list:
            try:
                self._overlay.forget(number, count)
            except Exception:
                log.exception("forget failed")

    @_answer
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return _entry(self._overlay.getattr(inode))

    @_answer
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        return _entry(
            self._overlay.setattr(
                inode,
                mode=attr.st_mode if fields.update_mode else None,
                uid=attr.st_uid if fields.update_uid else None,
                gid=attr.st_gid if fields.update_gid else None,
                size=attr.st_size if fields.update_size else None,
                atime_ns=attr.st_atime_ns if fields.update_atime else None,
                mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            )
        )

    @_answer
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        return self._overlay.readlink(inode)

    @_answer
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        status = self._overlay.statfs()
        data = pyfuse3.StatvfsData()
        for field in (
            "f_bsize f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail f_namemax".split()
        ):
            setattr(data, field, getattr(status, field))
        return data

    # Extended attributes

    @_answer
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        return self._overlay.getxattr(inode, name)

    @_answer
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        return self._overlay.listxattr(inode)

    @_answer
    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._overlay.setxattr(inode, name, value)

    @_answer
    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        self._overlay.removexattr(inode, name)

    # Names

    @_answer
    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(self._overlay.mknod(parent_inode, name, mode, rdev, ctx.uid, ctx.gid))

    @_answer
    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(self._overlay.mkdir(parent_inode, name, mode, ctx.uid, ctx.gid))

    @_answer
    async def symlink(
        self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(self._overlay.symlink(parent_inode, name, target, ctx.uid, ctx.gid))

    @_answer
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(self._overlay.link(inode, new_parent_inode, new_name))

    @_answer
    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        self._overlay.unlink(parent_inode, name)

    @_answer
    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        self._overlay.rmdir(parent_inode, name)

    @_answer
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: bytes,
        parent_inode_new: InodeT,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        self._overlay.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    # Files

    @_answer
    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        mode = stat.S_IFREG | stat.S_IMODE(mode)
        attributes = self._overlay.mknod(parent_inode, name, mode, 0, ctx.uid, ctx.gid)
        return _opened(attributes.number), _entry(attributes)

    @_answer
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & os.O_TRUNC:
            self._overlay.setattr(inode, size=0)
        return _opened(inode)

    @_answer
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return self._overlay.read(fh, off, size)

    @_answer
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return self._overlay.write(fh, off, buf)

    @_answer
    async def flush(self, fh: FileHandleT) -> None:
        raise FUSEError(errno.ENOSYS)  # nothing is buffered: the kernel asks once and never again

    @_answer
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._synced(self._overlay.fsync(fh, data_only=datasync))

    async def release(self, fh: FileHandleT) -> None:
        """An inode lives until the kernel forgets it, open or not."""

    # Directories

    @_answer
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    @_answer
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        for name, attributes, next_id in self._overlay.readdir(fh, start_id):
            if not pyfuse3.readdir_reply(
                token, pyfuse3.FileNameT(name), _entry(attributes), next_id
            ):
                break
            if name not in (b".", b".."):  # the kernel counts no reference for these two
                self._overlay.reference(attributes.number)

    async def releasedir(self, fh: FileHandleT) -> None:
        """As `release`."""

    @_answer
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._synced(self._overlay.fsyncdir(fh))

    async def _synced(self, job: Future[None] | None) -> None:
        if job is not None:
            await _done(job)
            job.result()
