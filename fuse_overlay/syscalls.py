"""The system calls that Python lacks: renameat2, fallocate, sync_file_range, and utimensat that
leaves a time. Called by what changes the upper directory.
"""

import ctypes
import os
import struct
from typing import Final

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4
FALLOC_FL_KEEP_SIZE: Final = 1
FALLOC_FL_PUNCH_HOLE: Final = 2
FALLOC_FL_COLLAPSE_RANGE: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def renameat2(
    source_directory: int, source: bytes, target_directory: int, target: bytes, flags: int
) -> None:
    """Rename with flags. Raises OSError."""
    if _renameat2(source_directory, source, target_directory, target, flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


_fallocate = _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Allocate, punch, zero, collapse or insert a range. Raises OSError."""
    if _fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_sync_file_range = _libc.sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE: Final = 2


def start_writing(fd: int) -> None:
    """Begin to write a whole file to disk, without waiting. Raises OSError."""
    if _sync_file_range(fd, 0, 0, _SYNC_FILE_RANGE_WRITE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_utimensat = _libc.utimensat
_utimensat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_futimens = _libc.futimens
_futimens.argtypes = (ctypes.c_int, ctypes.c_char_p)
_TIMES: Final = struct.Struct("@llll")
_AT_FDCWD: Final = -100
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_UTIME_OMIT: Final = (1 << 30) - 2
_SECOND: Final = 10**9


def set_times(
    path: int | bytes, atime_ns: int | None, mtime_ns: int | None, *, follow: bool
) -> None:
    """Set the times of a file, by descriptor or path, and leave what is None. Raises OSError."""
    times = _TIMES.pack(
        *((0, _UTIME_OMIT) if atime_ns is None else divmod(atime_ns, _SECOND)),
        *((0, _UTIME_OMIT) if mtime_ns is None else divmod(mtime_ns, _SECOND)),
    )
    if isinstance(path, int):
        failed = _futimens(path, times)
    else:
        failed = _utimensat(_AT_FDCWD, path, times, 0 if follow else _AT_SYMLINK_NOFOLLOW)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
