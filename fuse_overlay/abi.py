"""The kernel's FUSE protocol, version 7: opcodes, flags and structures of linux/fuse.h.

Names are the header's, without FUSE_. Nothing is decided here. Called by `requests` and
`connection`.
"""

import os
import struct
from enum import IntEnum
from typing import Final

from fuse_overlay.attributes import Attributes

MAJOR: Final = 7
MINOR: Final = 38
"""The version we speak. The kernel speaks it, or an older one, back to us."""


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51


# Flags of INIT.
ASYNC_READ: Final = 1 << 0
BIG_WRITES: Final = 1 << 5
DONT_MASK: Final = 1 << 6
DO_READDIRPLUS: Final = 1 << 13
ASYNC_DIO: Final = 1 << 15
WRITEBACK_CACHE: Final = 1 << 16
NO_OPEN_SUPPORT: Final = 1 << 17
PARALLEL_DIROPS: Final = 1 << 18
POSIX_ACL: Final = 1 << 20
MAX_PAGES: Final = 1 << 22
CACHE_SYMLINKS: Final = 1 << 23
NO_OPENDIR_SUPPORT: Final = 1 << 24
HANDLE_KILLPRIV_V2: Final = 1 << 28
SETXATTR_EXT: Final = 1 << 29

# Which members of a SETATTR count.
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_KILL_SUIDGID: Final = 1 << 11

WRITE_CACHE: Final = 1 << 0
WRITE_KILL_SUIDGID: Final = 1 << 2
SETXATTR_ACL_KILL_SGID: Final = 1 << 0
FSYNC_FDATASYNC: Final = 1 << 0

IN_HEADER: Final = struct.Struct("<IIQQIIIHH")
"""len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding"""
OUT_HEADER: Final = struct.Struct("<IiQ")
"""len, error, unique"""
INIT_IN: Final = struct.Struct("<IIII")
"""major, minor, max_readahead, flags; more follows since 7.36"""
INIT_OUT: Final = struct.Struct("<IIIIHHIIHHI28x")
"""major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran,
max_pages, map_alignment, flags2"""
FORGET_IN: Final = struct.Struct("<Q")
BATCH_FORGET_IN: Final = struct.Struct("<II")
FORGET_ONE: Final = struct.Struct("<QQ")
SETATTR_IN: Final = struct.Struct("<I4xQQQqqqIIIIIIII")
"""valid, fh, size, lock_owner, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode, unused,
uid, gid, unused"""
MKNOD_IN: Final = struct.Struct("<IIII")
"""mode, rdev, umask, padding"""
MKDIR_IN: Final = struct.Struct("<II")
"""mode, umask"""
RENAME_IN: Final = struct.Struct("<Q")
RENAME2_IN: Final = struct.Struct("<QII")
"""newdir, flags, padding"""
LINK_IN: Final = struct.Struct("<Q")
CREATE_IN: Final = struct.Struct("<IIII")
"""flags, mode, umask, open_flags"""
READ_IN: Final = struct.Struct("<QQIIQII")
"""fh, offset, size, read_flags, lock_owner, flags, padding"""
WRITE_IN: Final = struct.Struct("<QQIIQII")
"""fh, offset, size, write_flags, lock_owner, flags, padding"""
WRITE_OUT: Final = struct.Struct("<I4x")
FSYNC_IN: Final = struct.Struct("<QII")
"""fh, fsync_flags, padding"""
SETXATTR_IN: Final = struct.Struct("<III4x")
"""size, flags, setxattr_flags"""
GETXATTR_IN: Final = struct.Struct("<II")
"""size, padding"""
GETXATTR_OUT: Final = struct.Struct("<I4x")
FALLOCATE_IN: Final = struct.Struct("<QQQI4x")
"""fh, offset, length, mode"""
LSEEK_IN: Final = struct.Struct("<QQI4x")
"""fh, offset, whence"""
LSEEK_OUT: Final = struct.Struct("<Q")
COPY_FILE_RANGE_IN: Final = struct.Struct("<QQQQQQQ")
"""fh_in, off_in, nodeid_out, fh_out, off_out, len, flags"""
STATFS_OUT: Final = struct.Struct("<QQQQQIIII24x")
"""blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding"""
NOTIFY_INVAL_INODE: Final = 2
NOTIFY_INVAL_INODE_OUT: Final = struct.Struct("<Qqq")
"""ino, off (negative: the attributes only), len"""
OPEN_OUT: Final = struct.Struct("<QII")
"""fh, open_flags, padding"""

_ATTR = "QQQqqqIIIIIIIIII"
_ENTRY_OUT: Final = struct.Struct("<QQQQII" + _ATTR)
_DIRENT: Final = struct.Struct("<QQII")
_NO_ENTRY: Final = bytes(_ENTRY_OUT.size)

_FOREVER: Final = 10 * 365 * 86400
"""Seconds that the kernel may keep what we said: nobody else changes the layers."""
_SECOND: Final = 10**9

ABSENT: Final = _ENTRY_OUT.pack(0, 0, _FOREVER, 0, 0, 0, *[0] * 16)
"""The answer to LOOKUP that the kernel remembers as «no such name»."""


def entry_out(attributes: Attributes) -> bytes:
    """struct fuse_entry_out: an inode that the kernel gets one more reference to."""
    number, mode, links, uid, gid, status = attributes
    return _ENTRY_OUT.pack(
        number,
        0,
        _FOREVER,
        _FOREVER,
        0,
        0,
        number,
        status.st_size,
        status.st_blocks,
        status[7],
        status[8],
        status[9],
        status.st_atime_ns % _SECOND,
        status.st_mtime_ns % _SECOND,
        status.st_ctime_ns % _SECOND,
        mode,
        links,
        uid,
        gid,
        status.st_rdev and _encode_device(status.st_rdev),
        status.st_blksize,
        0,
    )


def attr_out(attributes: Attributes) -> bytes:
    """struct fuse_attr_out: the attributes of an inode."""
    # After nodeid and generation an entry holds two life times; attr_out has one of them.
    return _ATTR_LIFE + entry_out(attributes)[40:]


_ATTR_LIFE: Final = struct.pack("<QII", _FOREVER, 0, 0)


def direntplus(
    attributes: Attributes | None, number: int, kind: int, name: bytes, after: int
) -> bytes:
    """struct fuse_direntplus: a name, the inode it reaches (None for `.` and `..`, which count no
    reference), and the offset to go on from.
    """
    entry = _NO_ENTRY if attributes is None else entry_out(attributes)
    length = len(name)
    return b"%b%b%b%b" % (
        entry,
        _DIRENT.pack(number, after, length, kind >> 12),
        name,
        _PADDING[length & 7],
    )


_PADDING: Final = tuple(bytes(-length & 7) for length in range(8))


def _encode_device(device: int) -> int:
    """As new_encode_dev() of the kernel."""
    minor = os.minor(device)
    return minor & 0xFF | os.major(device) << 8 | (minor & ~0xFF) << 12


def decode_device(device: int) -> int:
    """The inverse, in the form of os.mknod."""
    return os.makedev(device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00)
