"""The attributes of an inode as one value. Knows no file; made by `tree`, read by `protocol`."""

from typing import NamedTuple


class Attributes(NamedTuple):
    """What stat(2) shows of an inode. Times in nanoseconds, `blocks` of 512 bytes."""

    number: int
    mode: int
    links: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    block_size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
