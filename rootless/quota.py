"""How much a directory may hold: bytes and files, of a container or of a volume.

Owns the syntax, which is Docker's, and the bounds. Pure. Who enforces it is the server of an
overlay, see fuse_overlay.quota.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from rootless.errors import RlError
from rootless.values import as_dict

# For a container to start: the files that what every container has is mounted on, their
# directories, and a few more.
_LEAST_SIZE: Final = 64 << 10
_LEAST_INODES: Final = 16


class Disk(NamedTuple):
    """At most ``size`` bytes and ``inodes`` files; 0 is no limit, None says nothing."""

    size: int | None = None
    inodes: int | None = None

    def or_else(self, other: Disk) -> Disk:
        """Return this limit, with that of ``other`` where nothing is said."""
        return Disk(
            other.size if self.size is None else self.size,
            other.inodes if self.inodes is None else self.inodes,
        )

    @property
    def exists(self) -> bool:
        """Whether anything is limited."""
        return bool(self.size or self.inodes)


def parse(options: Iterable[str], what: str = "storage option") -> Disk:
    """Read ``size=2G``, ``inodes=100000``; RlError for any other, which calls them ``what``."""
    disk = Disk()
    for option in options:
        name, given, text = option.partition("=")
        if name not in ("size", "inodes") or not given:
            raise RlError(f"unknown {what} {option!r} (size=2G and inodes=100000 are known)")
        disk = disk._replace(**{name: number(name, text)})
    return disk


def number(name: str, text: str) -> int:
    """Return the ``size`` or the ``inodes`` that a text says."""
    from rootless.sizes import LARGEST, parse_size

    if name == "size":
        found, least, shown = parse_size(text), _LEAST_SIZE, "64k"
    elif not (text.isascii() and text.isdecimal()):
        raise RlError(f"invalid inodes {text!r}: expected a number of files")
    elif len(text) > len(str(LARGEST)) or int(text) > LARGEST:
        raise RlError(f"invalid inodes {text[:100]!r}: the largest number is {LARGEST}")
    else:
        found, least, shown = int(text), _LEAST_INODES, str(_LEAST_INODES)
    if 0 < found < least:
        raise RlError(f"{name}={text} is too little: at least {shown}")
    return found


def describe(disk: Disk) -> dict[str, str]:
    """Return the limit as Docker's StorageOpt, and a volume's Options, show it."""
    values: dict[str, Any] = as_dict(disk)
    return {name: str(value) for name, value in values.items() if value}
