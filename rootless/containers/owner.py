"""Giving what is mounted to the container's user: the option U of -v, as Podman has it.

Owns the walk: by descriptors, never through a symlink, never into another file
system. Called by init as root of the container's user namespace, so that only
what belongs to the user and to the container's ids can be given.
"""

from __future__ import annotations

import errno
import os
import stat

from rootless.errors import RlError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def give(source: int, uid: int, gid: int, name: str) -> None:
    """Change the owner of the file or tree that ``source`` (an O_PATH descriptor) is.

    ``name`` is what an error calls it.
    """
    try:
        if stat.S_ISDIR(os.fstat(source).st_mode):
            _give_tree(os.open(".", _DIRECTORY, dir_fd=source), uid, gid)
        else:
            # The magic link leads to the very file that was opened.
            os.chown(f"/proc/self/fd/{source}", uid, gid)
    except OSError as error:
        why = error.strerror
        if error.errno in (errno.EPERM, errno.EINVAL, errno.EOVERFLOW):
            why = "something in it belongs to neither you nor the container"
        elif error.errno == errno.EMFILE:
            why = "its directories are too deep"
        raise RlError(f"cannot give {name} to the container's user: {why}") from None


def _give_tree(top: int, uid: int, gid: int) -> None:
    """Change the owner of a directory, which is closed, and of all below it on its file system."""
    device = os.fstat(top).st_dev
    # Each open directory with the names of the directories in it that are still to be entered.
    pending = [(top, _give_entries(top, uid, gid, device))]
    try:
        while pending:
            directory, names = pending[-1]
            if not names:
                pending.pop()
                os.close(directory)
                continue
            try:
                below = os.open(names.pop(), _DIRECTORY, dir_fd=directory)
            except (FileNotFoundError, NotADirectoryError):
                # Somebody changes the tree meanwhile.
                continue
            pending.append((below, []))
            if os.fstat(below).st_dev == device:
                pending[-1] = (below, _give_entries(below, uid, gid, device))
    finally:
        for directory, _ in pending:
            os.close(directory)


def _give_entries(directory: int, uid: int, gid: int, device: int) -> list[str]:
    """Give a directory and what is in it, but for its directories, whose names are returned."""
    os.fchown(directory, uid, gid)
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                directories.append(entry.name)
            elif found.st_dev == device and (found.st_uid, found.st_gid) != (uid, gid):
                os.chown(entry.name, uid, gid, dir_fd=directory, follow_symlinks=False)
    return directories
