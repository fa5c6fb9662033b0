"""Reads one directory of one layer: names, whiteouts and opaque mark, in all dialects in use.

Works from directory descriptors, never follows a symlink, never writes. Called by `tree`; what
changes the upper directory takes its ways of opening from here.
"""

import errno
import os
import stat
from collections.abc import Iterator

from fuse_overlay.merge import OPAQUE_ATTRIBUTES, OPAQUE_MARKER, WHITEOUT_PREFIX, Kind

DIRECTORY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OBJECT_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def descriptor_path(fd: int) -> str:
    """The path of what an O_PATH descriptor refers to; it ends there, even at a symlink."""
    return f"/proc/self/fd/{fd}"


def open_directory(name: bytes, parent: int) -> int:
    """Open a directory as a place to start from (O_PATH).

    Raises OSError: ENOTDIR for anything else, a symlink included.
    """
    return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file is a whiteout of the kernel's form."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def scan(directory: int) -> dict[bytes, Kind]:
    """The names in a directory, in its own order, with `.wh.NAME` shown as a whiteout of NAME."""
    names: dict[bytes, Kind] = {}
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                names[os.fsencode(entry.name)] = _kind(entry)
    finally:
        os.close(fd)
    marked = [name for name in names if name.startswith(WHITEOUT_PREFIX)]
    for name in marked:
        del names[name]
    for name in marked:
        # A whiteout hides what is below its layer, so a file of the same layer stays (image-spec,
        # layer.md).
        # `.wh..wh.` begins the names that aufs keeps for itself.
        if not name.startswith(WHITEOUT_PREFIX * 2):
            names.setdefault(name.removeprefix(WHITEOUT_PREFIX), Kind.WHITEOUT)
    return names


def _kind(entry: "os.DirEntry[str]") -> Kind:
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
        return Kind.OTHER
    return Kind.WHITEOUT if is_whiteout(entry.stat(follow_symlinks=False)) else Kind.OTHER


def walk(root: int) -> Iterator[tuple[list[bytes], list["os.DirEntry[str]"]]]:
    """All directories below one, itself first: the path from there, and what is in it.

    What is asked of the entries must be asked before the next step. Raises OSError.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    path: list[bytes] = []
    waiting: list[tuple[int, list[bytes]]] = []
    name = b"."
    directory = root
    try:
        while True:
            directory = os.open(name, flags, dir_fd=directory)
            waiting.append((directory, []))
            with os.scandir(directory) as scanned:
                entries = list(scanned)
            yield path, entries
            waiting[-1][1].extend(
                os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)
            )
            while not waiting[-1][1]:
                os.close(waiting.pop()[0])
                if not waiting:
                    return
                path.pop()
            directory, names = waiting[-1]
            name = names.pop()
            path.append(name)
    finally:
        for directory, _ in waiting:
            os.close(directory)


def is_opaque(directory: int) -> bool:
    """Whether a directory hides the directories of the same path in the layers below."""
    path = descriptor_path(directory)
    try:
        present = os.listxattr(path)
        if any(name in present and os.getxattr(path, name) == b"y" for name in OPAQUE_ATTRIBUTES):
            return True
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
    try:
        os.stat(OPAQUE_MARKER, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
