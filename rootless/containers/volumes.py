"""Volumes: directories that outlive the containers that write to them.

Owns ROOT/volumes/NAME: `_data`, all that containers see of it, volume.json that says what it is,
and `filling`. A volume appears by rename and goes by rename. Called by create and by the command
line; ``fill`` by init, inside the container's user namespace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rootless import events
from rootless.containers.request import valid_name
from rootless.errors import RlError, VolumeNotFound
from rootless.files import replace_file
from rootless.trees import remove_tree

# Docker's label for a volume that nobody named.
ANONYMOUS: Final = "com.docker.volume.anonymous"

_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume; ``path`` is what containers see of it."""

    name: str
    path: Path
    created: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        """Whether it was made for a container that named none."""
        return ANONYMOUS in self.labels


class VolumeStore:
    """The volumes of one user."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / "volumes"

    @staticmethod
    def new_name() -> str:
        """Return a name for an anonymous volume, as Docker forms it."""
        return os.urandom(32).hex()

    def create(self, name: str, labels: Mapping[str, str] | None = None) -> bool:
        """Make the volume ``name`` unless it is there, and tell; the caller keeps sweeps away."""
        path = self.path(name)
        if path.is_dir():
            return False
        draft = self._aside(name)
        data = draft / path.name
        data.mkdir(parents=True)
        # Whatever the user's umask: other users of a container are to reach it.
        data.chmod(_MODE)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {"created": now, "labels": dict(labels or {})}
        replace_file(draft / "volume.json", json.dumps(metadata).encode())
        self._directory.mkdir(exist_ok=True)
        try:
            draft.rename(path.parent)
        except OSError as error:
            # Somebody else was first.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove_tree(draft)
            return False
        events.record(self._root, "volume", "create", name, {"driver": "local"})
        return True

    def path(self, name: str) -> Path:
        """Return the directory that is mounted into containers."""
        if not valid_name(name):
            raise RlError(f"{name!r} is no volume name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        return self._directory / name / "_data"

    def get(self, name: str) -> Volume:
        """Return the volume of this name; VolumeNotFound if there is none."""
        path = self.path(name) if valid_name(name) else None
        if path is None or not path.is_dir():
            raise VolumeNotFound(f"no such volume: {name}")
        try:
            metadata = json.loads((path.parent / "volume.json").read_bytes())
            created, labels = str(metadata["created"]), dict(metadata["labels"])
        except (OSError, ValueError, KeyError, TypeError):
            # What it says is lost; what the volume holds is not.
            moment = datetime.fromtimestamp(path.parent.stat().st_mtime, UTC)
            created, labels = moment.strftime("%Y-%m-%dT%H:%M:%SZ"), {}
        return Volume(name, path, created, labels)

    def list(self) -> list[Volume]:
        """Return all volumes by name."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            with contextlib.suppress(VolumeNotFound):
                found.append(self.get(name))
        return found

    def withdraw(self, name: str) -> Path:
        """Let a volume disappear, and return where what it holds waits to be removed."""
        doomed = self._aside(name)
        doomed.parent.mkdir(exist_ok=True)
        try:
            self.path(name).parent.rename(doomed)
        except FileNotFoundError:
            raise VolumeNotFound(f"no such volume: {name}") from None
        events.record(self._root, "volume", "destroy", name, {"driver": "local"})
        return doomed

    def _aside(self, name: str) -> Path:
        return self._root / "tmp" / f"volume-{name}-{os.urandom(4).hex()}"


def open_filling(data: str) -> int:
    """Return what ``fill`` needs besides a volume's `_data`: the file beside it, which no container
    sees. It is locked by whoever fills the volume, and not empty until that is done.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(f"{os.path.dirname(data)}/filling", flags, 0o600)


def fill(volume: int, content: int, user: int, filling: int) -> None:
    """Copy the directory ``content`` into an empty volume, as Docker does on first use.

    ``volume`` is the _data directory, which stays the same directory: other containers may have it
    mounted, and change in it what they like meanwhile. A copy that was killed is made anew.
    ``user`` is what we are called here, ``filling`` what ``open_filling`` returned.
    """
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=volume)
    try:
        fcntl.flock(filling, fcntl.LOCK_EX)
        if os.fstat(filling).st_size:
            for name in os.listdir(directory):
                remove_tree(f"/proc/self/fd/{directory}/{name}")
        if not os.listdir(directory):
            wanted = os.stat(f"/proc/self/fd/{content}")
            if os.listdir(f"/proc/self/fd/{content}"):
                os.pwrite(filling, b"\n", 0)
                _copy(content, directory)
                _give(directory, wanted)
                os.ftruncate(filling, 0)
            elif _is_untouched(directory, {0, user}):
                _give(directory, wanted)
    finally:
        fcntl.flock(filling, fcntl.LOCK_UN)
        os.close(directory)


def _is_untouched(directory: int, makers: Collection[int]) -> bool:
    found = os.fstat(directory)
    return stat.S_IMODE(found.st_mode) == _MODE and found.st_uid in makers


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

    from rootless.containers.pack import pack
    from rootless.containers.unpack import Place, Rules, unpack

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
