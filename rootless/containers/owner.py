"""Giving what is mounted to the container's user: the option U of -v, as Podman has it.

Owns the walk: by descriptors, never through a symlink, never into another file
system. Called by init as root of the container's user namespace, so that only
what belongs to the user and to the container's ids can be given: all of a tree,
or nothing of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from typing import NamedTuple

from rootless.errors import RlError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# How the kernel shows ids that a user namespace does not have.
_UNMAPPED = 65534


def give(source: int, uid: int, gid: int, name: str) -> None:
    """Change the owner of the file or tree that ``source`` (an O_PATH descriptor) is.

    ``name`` is what an error calls it.
    """
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            for entry in _walk(source):
                _check(entry)
            for entry in _walk(source):
                if entry.name == "." or entry.owner != (uid, gid):
                    _change(entry, uid, gid)
        else:
            # The magic link leads to the very file that was opened.
            os.chown(f"/proc/self/fd/{source}", uid, gid)
    except OSError as error:
        why = error.strerror
        if error.errno in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOVERFLOW):
            below = str(error.filename or "/")
            at = name if below.startswith("/") else os.path.join(name, below)
            shown = at if at.isprintable() else ascii(at)
            why = f"{shown} belongs to neither you nor the container"
        elif error.errno == errno.EMFILE:
            why = "its directories are too deep"
        raise RlError(f"cannot give {name} to the container's user: {why}") from None


class _Entry(NamedTuple):
    """One file of a tree; a directory is the "." of its own descriptor."""

    directory: int
    name: str
    path: str
    owner: tuple[int, int]


def _check(entry: _Entry) -> None:
    """Raise OSError for what cannot be given."""
    if _UNMAPPED in entry.owner:
        # Either really that id's, or somebody's whom we cannot name: then the kernel refuses.
        _change(entry, *entry.owner)


def _change(entry: _Entry, uid: int, gid: int) -> None:
    try:
        os.chown(entry.name, uid, gid, dir_fd=entry.directory, follow_symlinks=False)
    except OSError as error:
        error.filename = entry.path
        raise


def _walk(source: int) -> Iterator[_Entry]:
    """Find all of a tree on its file system; a directory comes before what is in it."""
    top = os.open(".", _DIRECTORY, dir_fd=source)
    device = os.fstat(top).st_dev
    # Each open directory with its path and the names of those in it still to be entered.
    pending: list[tuple[int, str, list[str]]] = [(top, "", [])]
    try:
        pending[0][2].extend((yield from _entries(top, "", device)))
        while pending:
            directory, path, names = pending[-1]
            if not names:
                pending.pop()
                os.close(directory)
                continue
            path = os.path.join(path, names.pop())
            try:
                below = os.open(os.path.basename(path), _DIRECTORY, dir_fd=directory)
            except (FileNotFoundError, NotADirectoryError):
                # Somebody changes the tree meanwhile.
                continue
            except OSError as error:
                error.filename = path
                raise
            pending.append((below, path, []))
            if os.fstat(below).st_dev == device:
                pending[-1][2].extend((yield from _entries(below, path, device)))
    finally:
        for directory, _, _ in pending:
            os.close(directory)


def _entries(directory: int, path: str, device: int) -> Generator[_Entry, None, list[str]]:
    """Find a directory and what is in it, but for its directories, whose names are returned."""
    own = os.fstat(directory)
    yield _Entry(directory, ".", path, (own.st_uid, own.st_gid))
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                directories.append(entry.name)
            elif found.st_dev == device:
                owner = (found.st_uid, found.st_gid)
                yield _Entry(directory, entry.name, os.path.join(path, entry.name), owner)
    return directories
