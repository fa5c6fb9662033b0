"""The one system call that Python's os module lacks here: renameat2(2). Called by `changes`
and `rename`.
"""

import ctypes
import os
from typing import Final

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2
RENAME_WHITEOUT: Final = 4

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
