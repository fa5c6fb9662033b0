"""Filling a volume from the image, on first use, as Docker does.

Owns the file `filling` beside a volume's `_data`: its lock, and the mark of a copy that was begun.
Called by init, inside the container's user namespace.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Collection
from typing import Final

from rootless.errors import RlError
from rootless.trees import remove_tree

# What a new volume's directory has.
MODE: Final = 0o755


def open_filling(data: str) -> int:
    """Return what ``fill`` needs besides a volume's `_data`: the file beside it, which no container
    sees. It is locked by whoever fills the volume, and not empty until that is done.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{os.path.dirname(data)}/filling", flags, 0o600)


def fill(volume: int, content: int, user: int, filling: int) -> None:
    """Copy the directory ``content`` into an empty volume, as Docker does on first use.

    ``volume`` is the _data directory, which stays the same directory: other containers may have it
    mounted, and change in it what they like meanwhile. A copy that was killed is made anew, one
    that fails, as at the volume's limit, leaves nothing.
    ``user`` is what we are called here, ``filling`` what ``open_filling`` returned.
    """
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=volume)
    try:
        fcntl.flock(filling, fcntl.LOCK_EX)
        if os.fstat(filling).st_size:
            _empty(directory)
        if not os.listdir(directory):
            wanted = os.stat(f"/proc/self/fd/{content}")
            if os.listdir(f"/proc/self/fd/{content}"):
                os.pwrite(filling, b"\n", 0)
                try:
                    _copy(content, directory)
                except RlError:
                    _empty(directory)
                    os.ftruncate(filling, 0)
                    raise
                _give(directory, wanted)
                os.ftruncate(filling, 0)
            elif _is_untouched(directory, {0, user}):
                _give(directory, wanted)
    finally:
        fcntl.flock(filling, fcntl.LOCK_UN)
        os.close(directory)


def _empty(directory: int) -> None:
    for name in os.listdir(directory):
        remove_tree(f"/proc/self/fd/{directory}/{name}")


def _is_untouched(directory: int, makers: Collection[int]) -> bool:
    found = os.fstat(directory)
    return stat.S_IMODE(found.st_mode) == MODE and found.st_uid in makers


def _give(directory: int, wanted: os.stat_result) -> None:
    """Give a volume the owner and mode of the image's directory."""
    os.fchown(directory, wanted.st_uid, wanted.st_gid)
    os.fchmod(directory, stat.S_IMODE(wanted.st_mode))


def _copy(source: int, target: int) -> None:
    """Copy what is below a directory, by descriptors on both sides.

    Never by a program like cp(1): the host's tree is in our sight, and a container that has the
    volume too could lead it there by links.
    """
    from concurrent.futures import ThreadPoolExecutor

    from rootless.archive.pack import pack
    from rootless.archive.unpack import Place, Rules, unpack

    def pack_into(end: int) -> None:
        with open(end, "wb") as sink:
            pack(source, "", sink, exact=True)

    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as other:
        packed = other.submit(pack_into, writing)
        try:
            with open(reading, "rb") as archive:
                unpack(archive, Place(target), Rules(keep=True, as_root=True, setid=True))
        except RlError as error:
            # Of what ended early, the other end may know the cause.
            why = packed.exception()
            if not isinstance(why, RlError):
                why = error
            raise RlError(f"cannot fill a volume from the image: {why}") from None
        packed.result()
