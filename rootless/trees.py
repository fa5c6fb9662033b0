"""Removing directory trees that a hostile image or container made.

Owns deletion, and only that: trees deeper than the interpreter's stack or the
longest path, with any modes and names. Called by whoever removes a layer or a
container's files, as root of a user namespace that maps their owners.
"""

from __future__ import annotations

import contextlib
import os

_gone = contextlib.suppress(FileNotFoundError)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove ``path`` and all below it; no symbolic link is followed.

    A path that does not exist is no error, nor is another who removes it meanwhile.
    A directory's subdirectories are
    moved up to the top and emptied there, so that depth costs neither
    recursion nor descriptors. Raises OSError for what cannot be removed.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    except OSError:  # not a directory; if it is another error, unlink says so
        os.unlink(path)
        return
    prefix = os.urandom(16).hex()  # no name in the tree begins like this
    moved = 0
    try:
        while names := _remove_files(top):
            for name in names:
                try:
                    directory = os.open(name, _DIRECTORY, dir_fd=top)
                except FileNotFoundError:
                    continue
                try:
                    for below in _remove_files(directory):
                        moved += 1
                        with _gone:
                            os.rename(
                                below, f"{prefix}{moved}", src_dir_fd=directory, dst_dir_fd=top
                            )
                finally:
                    os.close(directory)
                with _gone:
                    os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    with _gone:
        os.rmdir(path)


def _remove_files(directory: int) -> list[str]:
    """Unlink all in a directory that are not directories themselves; return the names of those."""
    found: list[os.DirEntry[str]] = []
    with _gone, os.scandir(directory) as entries:
        found += entries
    subdirectories = []
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            subdirectories.append(entry.name)
        else:
            with _gone:
                os.unlink(entry.name, dir_fd=directory)
    return subdirectories
