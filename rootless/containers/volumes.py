"""Volumes: directories that outlive the containers that write to them.

Owns ROOT/volumes/NAME/_data. A volume appears by mkdir and goes by being
renamed into ROOT/tmp first. Called by create and by the command line; ``fill``
by init, inside the container's user namespace.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from rootless.containers.request import valid_name
from rootless.errors import RlError
from rootless.trees import remove_tree


class VolumeStore:
    """The volumes of one user."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / "volumes"

    @staticmethod
    def new_name() -> str:
        """Return a name for an anonymous volume, as Docker forms it."""
        return os.urandom(32).hex()

    def create(self, name: str) -> None:
        """Make the volume ``name`` unless it is there."""
        path = self.path(name)
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            # Whatever the user's umask: other users of a container are to reach it.
            path.chmod(0o755)

    def path(self, name: str) -> Path:
        """Return the directory that is mounted into containers."""
        if not valid_name(name):
            raise RlError(f"{name!r} is no volume name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        return self._directory / name / "_data"

    def remove(self, name: str) -> None:
        """Remove a volume and what it holds; must run as root of the user's namespace."""
        doomed = self._root / "tmp" / f"volume-{name}-{os.urandom(4).hex()}"
        doomed.parent.mkdir(exist_ok=True)
        try:
            self.path(name).parent.rename(doomed)
        except FileNotFoundError:
            return
        remove_tree(doomed)


def fill(volume: str, content: int) -> None:
    """Copy the directory ``content`` into an empty volume, as Docker does on first use.

    ``volume`` is the _data directory, which stays the same directory: other
    containers may have it mounted. A mark beside it tells of a copy that was
    killed, and is then made anew.
    """
    mark = os.path.join(os.path.dirname(volume), "filling")
    lock = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        source = f"/proc/self/fd/{content}"
        if os.path.exists(mark):
            for name in os.listdir(volume):
                remove_tree(os.path.join(volume, name))
        if os.listdir(volume) or not os.listdir(source):
            return
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _copy(source, volume, content)
        os.unlink(mark)
    finally:
        os.close(lock)


def _copy(source: str, target: str, held: int) -> None:
    # cp keeps owners, modes, times, xattrs, links and holes; nothing else runs in the tree yet.
    arguments = ["cp", "-a", "--reflink=auto", "--", f"{source}/.", target]
    os.set_inheritable(held, True)
    copier = os.posix_spawnp("cp", arguments, {"PATH": os.defpath})
    os.set_inheritable(held, False)
    if os.waitstatus_to_exitcode(os.waitpid(copier, 0)[1]):
        raise RlError("cannot fill a volume from the image (see the message above)")
