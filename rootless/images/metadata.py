"""What an archive says of a file besides its content: owner, times, extended attributes.

Owns which of it an image may decide, and how it is read from tar headers. Used
by rootless.images.layer in its process; never opens or makes a file.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from typing import TYPE_CHECKING, Final

from rootless.errors import RlError

if TYPE_CHECKING:
    import tarfile

# What a layer's root keeps of its unpacked size. Hidden in a mount, and no image can set it.
SIZE_XATTR: Final = "user.overlay.rl.size"

PAX_XATTR: Final = "SCHILY.xattr."
# An image that brought these could rename, hide or redirect entries of other layers.
_OVERLAY_XATTRS: Final = ("user.overlay.", "user.fuseoverlayfs.", "user.containers.")

_MTIME: Final = re.compile(r"(?a)(-?)(\d{1,18})(?:\.(\d{1,9})\d*)?")


def shown(name: str) -> str:
    """Return a name as it can be printed: quoted, no control characters, not too long."""
    return repr(name if len(name) <= 300 else name[:300] + "…")


def set_owner(target: int | str, entry: tarfile.TarInfo) -> None:
    """Set the numeric owner and group, of a descriptor or of a path itself; RlError if unmapped.

    Where there is no user but root, all is root's.
    """
    # 2**32-1 is chown(2)'s word for "as it is".
    for number in (entry.uid, entry.gid):
        if not 0 <= number < 2**32 - 1:
            raise RlError(f"{number} is not a user or group id")
    try:
        if isinstance(target, int):
            os.fchown(target, entry.uid, entry.gid)
        else:
            os.lchown(target, entry.uid, entry.gid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if root_is_alone():
            return
        raise RlError(
            f"its owner {entry.uid}:{entry.gid} is outside your ranges of subordinate ids "
            "(an administrator can widen them in /etc/subuid and /etc/subgid)"
        ) from None


@functools.cache
def root_is_alone() -> bool:
    """Tell whether root is the only user of this namespace; to be asked before /proc is gone."""
    with open("/proc/self/uid_map", "rb") as file:
        sizes = [int(line.split()[2]) for line in file]
    return sizes == [1]


def times(entry: tarfile.TarInfo) -> tuple[int, int]:
    """Return access and modification time in nanoseconds, both the archive's mtime."""
    text = entry.pax_headers.get("mtime")
    if text is None:  # an integer of up to 95 bits; no file system keeps the years beyond
        seconds = max(-(2**40), min(int(entry.mtime), 2**40))
        return (seconds * 10**9,) * 2
    # tarfile makes a float of it, which has not enough digits for nanoseconds.
    match = _MTIME.fullmatch(text)
    if not match:
        raise RlError(f"its time is {shown(text)}")
    sign, whole, fraction = match.groups("0")
    nanoseconds = min(int(whole), 2**40) * 10**9 + int(fraction.ljust(9, "0"))
    return (-nanoseconds if sign == "-" else nanoseconds,) * 2


def set_xattrs(target: int | str, entry: tarfile.TarInfo) -> None:
    """Set the extended attributes of a file or directory that an image may decide."""
    for key, value in entry.pax_headers.items():
        name = key.removeprefix(PAX_XATTR)
        if name == key or not is_kept(name):
            continue
        try:
            os.setxattr(target, name, value.encode("utf-8", "surrogateescape"))
        except OSError as error:
            # As other tools do: a file system without attributes still takes the image.
            if error.errno != errno.ENOTSUP:
                raise RlError(f"cannot set its attribute {shown(name)}: {error.strerror}") from None


def is_kept(name: str) -> bool:
    """Tell whether an image may set this extended attribute.

    The others belong to this machine (security.selinux, POSIX ACLs), to its
    administrator (trusted) or to the overlay.
    """
    if name == "security.capability":
        return True
    return name.startswith("user.") and not name.startswith(_OVERLAY_XATTRS)
