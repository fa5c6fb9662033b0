"""Copies one file's data and metadata to another, inside the kernel and without filling holes.

Knows descriptors and paths under /proc/self/fd only, nothing of layers. `copy_data` may run for
long: it touches no shared state, so that it can be moved to a thread. Called by `copyup`.
"""

import errno
import fcntl
import os

from fuse_overlay.merge import NUMBER_ATTRIBUTE, is_layer_attribute

_FICLONE = 0x40049409
"""ioctl_ficlone(2)."""
_CHUNK = 1 << 30
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY)


def copy_data(source: int, target: int, size: int) -> None:
    """Make the empty file `target` hold the first `size` bytes of `source`, holes included."""
    if size > 0 and not _clone(source, target):
        for start, end in data_extents(source, size):
            _copy_range(source, target, start, end)
    os.ftruncate(target, size)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def data_extents(source: int, size: int) -> list[tuple[int, int]]:
    """The parts of a file that are not holes, as (start, end), below `size`."""
    extents: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return [(0, size)]
        if start >= size:
            break
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        extents.append((start, end))
    return extents


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(source, target, min(end - start, _CHUNK), start, start)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            os.lseek(target, start, os.SEEK_SET)
            copied = os.sendfile(target, source, start, min(end - start, _CHUNK))
        if copied == 0:
            break  # the source is shorter than it was: someone changes a lower layer
        start += copied


def copy_metadata(source: str, target: str, status: os.stat_result, number: int) -> None:
    """Give the file at the path `target` the attributes and times of `source`, whose stat is
    `status`, and the inode `number` that it is to be shown under.

    To be called when it has its owner: chown clears set-id bits and file capabilities.
    """
    _copy_attributes(source, target)
    write_number(target, number)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def write_number(target: str, number: int) -> None:
    """Write on a file which inode number it keeps, where the file can hold it."""
    try:
        os.setxattr(target, NUMBER_ATTRIBUTE, b"%d" % number)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.EDQUOT):
            raise


def _copy_attributes(source: str, target: str) -> None:
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in names:
        if is_layer_attribute(os.fsencode(name)):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            # What the upper file system cannot hold, or only real root may set (trusted.*, a
            # label).
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
