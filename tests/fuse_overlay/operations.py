"""What the differential test does to a mount, and what it sees there.

An operation is a plain function on paths relative to the working directory, which is the mount's
root; it returns a value that can be compared, or raises OSError. Used by `test_differential`.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import re
import shutil
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from fuse_overlay.syscalls import RENAME_EXCHANGE, fallocate, renameat2
from tests.fuse_overlay.generated import LONG_AGO

_NOW = 15 * 10**17
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


# What is seen


class Seen(NamedTuple):
    """What a name shows. Of a directory no link count and no size: no two file systems agree."""

    mode: str
    owner: tuple[int, int]
    links: int
    size: int
    mtime: int | str
    number: int


class Node(NamedTuple):
    """All that is to be seen of an object in a tree; `same_as` is the first of its names."""

    mode: str
    owner: tuple[int, int]
    links: int
    size: int
    mtime: int | str
    attributes: tuple[tuple[str, bytes], ...]
    content: object
    same_as: str


def seen(status: os.stat_result) -> Seen:
    """Take from a status what can be compared, the inode number last."""
    directory = stat.S_ISDIR(status.st_mode)
    return Seen(
        stat.filemode(status.st_mode),
        (status.st_uid, status.st_gid),
        0 if directory else status.st_nlink,
        0 if directory else status.st_size,
        status.st_mtime_ns if status.st_mtime_ns < _NOW else "now",
        status.st_ino,
    )


def look(path: str) -> Seen | str:
    """What a name shows, or the error."""
    try:
        return seen(os.lstat(path))
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def follow(path: str) -> Seen | str:
    """What a name leads to, through a symbolic link too, or the error."""
    try:
        return seen(os.stat(path))
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def tree(upper: Path | None = None) -> dict[str, Node]:
    """All that can be seen below the working directory.

    The kernel's overlayfs shows two inode numbers for the names of a lower file that was linked to;
    whether they are one is seen in its `upper` directory.
    """
    first: dict[tuple[bool, int], str] = {}
    nodes: dict[str, Node] = {}
    waiting = ["."]
    while waiting:
        path = waiting.pop()
        status = os.lstat(path)
        content: object = ""
        beneath = None if upper is None else upper / path
        if beneath is not None and os.path.lexists(beneath):
            identity = True, os.lstat(beneath).st_ino
        else:
            identity = False, status.st_ino
        if stat.S_ISDIR(status.st_mode):
            content = directory_entries(path)
            names = sorted(os.listdir(path), reverse=True)
            waiting += [name if path == "." else f"{path}/{name}" for name in names]
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                content = summary(file.read())
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        nodes[path] = Node(
            *seen(status)[:5],
            attributes(path),
            content,
            first.setdefault(identity, path),
        )
    return nodes


def numbers() -> dict[str, int]:
    """The inode numbers of what can keep one where it is written on the file."""
    found = {}
    for directory, directories, files in os.walk("."):
        for name in [".", *directories, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                found[path] = status.st_ino
    return found


def differences(expected: Mapping[str, Node], found: Mapping[str, Node]) -> list[str]:
    """Say in lines how two trees differ."""
    lines = []
    for path in sorted({*expected, *found}):
        one, other = expected.get(path), found.get(path)
        if one is None or other is None:
            lines.append(f"{path}: {one} is {other}")
        else:
            lines += [
                f"{path}: {field} {wanted!r} is {got!r}"
                for field, wanted, got in zip(Node._fields, one, other, strict=True)
                if wanted != got
            ]
    return lines


def summary(data: bytes) -> object:
    """Describe content by what is not zero, so that a difference can be read."""
    runs = re.finditer(rb"[^\0]+", data)
    return len(data), tuple(
        (run.start(), run.group() if len(run.group()) < 50 else _digest(run.group()))
        for run in runs
    )


def _digest(data: bytes) -> str:
    return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:8]}"


# Operations on names


def directory_entries(path: str) -> tuple[tuple[str, str], ...]:
    with os.scandir(path) as entries:
        return tuple(sorted((entry.name, _type(entry)) for entry in entries))


def _type(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    """The attributes of an object, but for those that are the overlay's own."""
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if not name.startswith("user.overlay.")
    )


def open_file(path: str, flags: int, mode: int = 0o666) -> int:
    """Open anything that does not act on what opens it: no FIFO, which is not the overlay's."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENXIO, "a FIFO")
    return fd


def read(path: str) -> object:
    fd = open_file(path, os.O_RDONLY)
    try:
        return read_handle(fd, 0, 2 << 20)
    finally:
        os.close(fd)


def write(path: str, flags: int, offset: int, data: bytes) -> object:
    fd = open_file(path, flags | os.O_WRONLY)
    try:
        return os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def write_map(path: str, offset: int, data: bytes) -> object:
    fd = open_file(path, os.O_RDWR)
    try:
        return map_handle(fd, offset, data)
    finally:
        os.close(fd)


def truncate(path: str, size: int) -> None:
    os.truncate(path, size)


def link(old: str, new: str) -> None:
    os.link(old, new, follow_symlinks=False)


def utime(path: str | int, mtime: int | None) -> None:
    """Set the time of modification, None for now, without following a symbolic link."""
    follow = isinstance(path, int)
    if mtime is None:
        os.utime(path, follow_symlinks=follow)
    else:
        os.utime(path, ns=(LONG_AGO, mtime), follow_symlinks=follow)


def rename(old: str, new: str, flags: int) -> None:
    renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags)


def move(old: str, new: str, flags: int) -> None:
    """Rename a directory with a lower part under the kernel's overlayfs, which cannot do it.

    What it contains is moved, and not copied: files stay the same.
    """
    if flags & RENAME_EXCHANGE:
        aside = os.path.join(os.path.dirname(old), "exchanged")
        move(old, aside, 0)
        move(new, old, 0)
        move(aside, new, 0)
        return
    try:
        rename(old, new, 0)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    if os.path.lexists(new):
        os.rmdir(new)
    status = os.stat(old)
    os.mkdir(new)
    for name in os.listdir(old):
        move(f"{old}/{name}", f"{new}/{name}", 0)
    for key, _ in attributes(new):
        os.removexattr(new, key)
    os.chown(new, status.st_uid, status.st_gid)
    os.chmod(new, stat.S_IMODE(status.st_mode))
    for key, value in attributes(old):
        os.setxattr(new, key, value)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.rmdir(old)


def remove_tree(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
    shutil.rmtree(path)


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# Operations on what is open


def read_handle(fd: int, offset: int, size: int) -> object:
    return summary(os.pread(fd, size, offset))


def map_handle(fd: int, offset: int, data: bytes) -> object:
    """Write through a shared map, as far as the file goes."""
    size = os.fstat(fd).st_size
    data = data[: max(size - offset, 0)]
    if not data or stat.S_ISDIR(os.fstat(fd).st_mode):
        return "nothing to write"
    with mmap.mmap(fd, size, mmap.MAP_SHARED) as mapped:
        before = mapped[offset : offset + len(data)]
        mapped[offset : offset + len(data)] = data
    return before


def allocate(fd: int, mode: int, offset: int, length: int) -> None:
    fallocate(fd, mode, offset, length)


def link_handle(fd: int, path: str) -> None:
    os.link(f"/proc/self/fd/{fd}", path, follow_symlinks=True)


def list_handle(fd: int) -> object:
    return sorted(os.listdir(fd))


# Attributes


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as its attribute holds it: tag, permissions and id of each entry."""
    packed = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    return struct.pack("<I", 2) + packed


NOBODY = 0xFFFFFFFF
ACLS = (
    acl((1, 7, NOBODY), (2, 7, 77), (4, 5, NOBODY), (0x10, 5, NOBODY), (0x20, 0, NOBODY)),
    acl((1, 6, NOBODY), (4, 4, NOBODY), (0x20, 4, NOBODY)),
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""CAP_NET_BIND_SERVICE, permitted and effective."""


def as_user(user: int, function: Callable[..., object], *arguments: object) -> object:
    """Call with the file system rights of another user."""
    if user == 0:
        return function(*arguments)
    _libc.setfsgid(user)
    _libc.setfsuid(user)
    try:
        return function(*arguments)
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)
