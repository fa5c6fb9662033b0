"""The system calls that Python lacks: renameat2, fallocate, sync_file_range. Called by what changes
the upper directory.
"""

import ctypes
import os
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
