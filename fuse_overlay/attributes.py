"""The attributes of an inode as one value. Knows no file; made by `tree`, read by the protocols."""

import os
from typing import NamedTuple


class Attributes(NamedTuple):
    """What stat(2) shows of an inode; sizes, times and device are those of `status`."""

    number: int
    mode: int
    links: int
    uid: int
    gid: int
    status: os.stat_result
