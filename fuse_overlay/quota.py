"""The disk limit: what the upper directory holds, and how much more it may hold.

Counted are the inodes of the upper directory and their allocated blocks, whiteouts excepted, as
du(1) counts: once by a scan when the file system is mounted, then by what each operation changed.
Called by `tree` and by what changes the upper directory, with the status that it has at hand.
"""

import errno
import fcntl
import os
import struct
from itertools import islice
from typing import Final

from fuse_overlay.copydata import data_extents
from fuse_overlay.inodes import Inode
from fuse_overlay.layers import descriptor_path, is_whiteout, walk

_SECTOR: Final = 512
"""What st_blocks counts in."""


class LimitReached(OSError):
    """ENOSPC because of the limit: what is freed just now may help."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Quota:
    """At most `size` bytes and `inodes` inodes (None: unlimited).

    `upper` is the directory that counts, as a descriptor; `links` holds more links to its files,
    and files that have no other name yet (see `links`). A block is `block` bytes. To make a name
    takes a free block, since the directory may need it.
    """

    def __init__(self, size: int | None, inodes: int | None, upper: int, links: int) -> None:
        self.limit(size, inodes)
        self.block = os.fstatvfs(upper).f_frsize
        self._per_block = self.block // _SECTOR
        seen = {_key(os.fstat(links))}
        self._used = _scan(upper, seen) + _scan(links, seen)
        self._inodes = len(seen) - 1

    def limit(self, size: int | None, inodes: int | None) -> None:
        """Allow so much from now on, perhaps less than is used already."""
        self._limit = None if size is None else size // _SECTOR
        self._inode_limit = inodes

    def take(self, sectors: int, inodes: int) -> None:
        """Count what is about to be used. Raises LimitReached if it is more than is left."""
        if (self._limit is not None and self._used + sectors > self._limit) or (
            self._inode_limit is not None and inodes and self._inodes + inodes > self._inode_limit
        ):
            raise LimitReached
        self._used += sectors
        self._inodes += inodes

    def give(self, sectors: int, inodes: int) -> None:
        """Count what is used no more."""
        self._used -= sectors
        self._inodes -= inodes

    def check(self, blocks: int, inodes: int = 0) -> None:
        """Raise LimitReached if so much is not left."""
        self.take(blocks * self._per_block, inodes)
        self.give(blocks * self._per_block, inodes)

    def settle(self, inode: Inode, status: os.stat_result) -> None:
        """An upper inode has changed: count what it uses now."""
        self._used += status.st_blocks - inode.charged
        inode.charged = status.st_blocks

    def writable(self, fd: int, offset: int, length: int) -> int:
        """How many of the `length` bytes at `offset` of a file can be written.

        Raises LimitReached if none.
        """
        if self._limit is None:
            return length
        block = self.block
        position, end = offset - offset % block, offset + length
        left = max(self._limit - self._used, 0) // self._per_block
        if -(-(end - position) // block) <= left:
            return length
        for start, stop in [*_allocated(fd, position, end), (end, end)]:
            # Up to `start` nothing is allocated yet, and then there is until `stop`.
            needed = max(-(-(start - position) // block), 0)
            if needed > left:
                position += left * block
                break
            left -= needed
            position = max(position, stop)
        if position <= offset:
            raise LimitReached
        return min(position - offset, length)

    def statvfs(self, below: os.statvfs_result) -> os.statvfs_result:
        """What statvfs(3) shows: the limit, and what is left of it and of the file system below.

        Where that has less left than the limit, the whole is smaller: df subtracts to show what is
        used. A file system that makes inodes as it needs them counts none.
        """
        values = list(below)
        if self._limit is not None:
            unit = below.f_frsize // _SECTOR
            left = max(self._limit - self._used, 0) // unit
            values[3] = min(left, below.f_bfree)
            values[2] = min(self._limit // unit, self._used // unit + below.f_bfree)
            values[4] = min(left, below.f_bavail)
        if self._inode_limit is not None:
            left = max(self._inode_limit - self._inodes, 0)
            values[6] = values[7] = min(left, below.f_ffree) if below.f_files else left
            values[5] = min(self._inode_limit, self._inodes + values[6])
        return os.statvfs_result(values)


_FIEMAP: Final = 0xC020660B
_FIEMAP_HEADER: Final = struct.Struct("=QQIIII")
"""start, length, flags, mapped_extents, extent_count, reserved"""
_FIEMAP_EXTENT: Final = struct.Struct("=QQQ16xI12x")
"""logical, physical, length, flags"""
_EXTENTS: Final = 512
"""No fewer than the blocks of the largest write."""


def _allocated(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """The parts of a range that have blocks, written or not, as (start, end) in order.

    Where the file system does not tell, those that hold data.
    """
    buffer = bytearray(_FIEMAP_HEADER.size + _EXTENTS * _FIEMAP_EXTENT.size)
    _FIEMAP_HEADER.pack_into(buffer, 0, start, end - start, 0, 0, _EXTENTS, 0)
    try:
        fcntl.ioctl(fd, _FIEMAP, buffer)
    except OSError:
        size = os.fstat(fd).st_size
        return [(first, last) for first, last in data_extents(fd, size) if last > start]
    count = _FIEMAP_HEADER.unpack_from(buffer)[3]
    extents = _FIEMAP_EXTENT.iter_unpack(buffer[_FIEMAP_HEADER.size :])
    return [(logical, logical + length) for logical, _, length, _ in islice(extents, count)]


def _scan(root: int, seen: set[tuple[int, int]]) -> int:
    """The sectors of a directory and all below it, but for inodes already seen."""
    top = os.stat(descriptor_path(root))
    used = _count(top, seen)
    for _, entries in walk(root):
        for entry in entries:
            used += _count(entry.stat(follow_symlinks=False), seen)
    return used


def _count(status: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if _key(status) in seen or is_whiteout(status):
        return 0
    seen.add(_key(status))
    return status.st_blocks


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
