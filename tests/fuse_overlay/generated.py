"""The layers that the differential test starts from: values, and the directories made of them.

Used by `test_differential` and what it draws from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuse_overlay.support import (
    kernel_mounted,
    whiteout,
)

LONG_AGO = 10**18
"""A modification time: what was set, or was so in a layer, is before `_NOW`; all else is now."""


class Repeated(bytes):
    """Bytes that are short to print."""

    def __new__(cls, unit: bytes, times: int) -> Repeated:
        return super().__new__(cls, unit * times)

    def __init__(self, unit: bytes, times: int) -> None:
        self._text = f"{unit!r} * {times}"

    def __repr__(self) -> str:
        return self._text


# Layers


@dataclass(frozen=True)
class Regular:
    """A regular file with bytes at some offsets and holes between."""

    data: tuple[tuple[int, bytes], ...] = ()
    size: int = 0
    mode: int = 0o644
    owner: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Directory:
    mode: int = 0o755
    owner: int = 0
    opaque: bool = False
    attributes: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Symlink:
    target: str
    owner: int = 0


@dataclass(frozen=True)
class Fifo:
    mode: int = 0o644
    owner: int = 0


@dataclass(frozen=True)
class Whiteout:
    pass


@dataclass(frozen=True)
class Link:
    """One more name of a regular file of the same layer."""

    to: str


Object = Regular | Directory | Symlink | Fifo | Whiteout | Link
Layer = Mapping[str, Object]


def build(directory: Path, layers: Sequence[Layer]) -> list[Path]:
    """Make the layers, topmost first. What cannot be there, below a file for one, is left out."""
    paths = []
    for number in range(len(layers)):
        path = directory / f"lower{number}"
        path.mkdir(parents=True)
        paths.append(path)
    for number, layer in reversed(list(enumerate(layers))):
        for name, found in sorted(layer.items(), key=lambda item: isinstance(item[1], Link)):
            _make(paths[number], paths[number + 1 :], name, found)
    for path in paths:
        for directory_path, _, files in os.walk(path, topdown=False):
            for name in [*files, "."]:
                os.utime(f"{directory_path}/{name}", ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    return paths


def _make(root: Path, below: Sequence[Path], name: str, found: Object) -> None:
    path = root / name
    parents = [root / parent for parent in reversed(Path(name).parents)]
    if os.path.lexists(path) or any(
        os.path.lexists(parent) and not _is_directory(parent) for parent in parents
    ):
        return
    if isinstance(found, Whiteout) and not _merged(root, below, Path(name).parent):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(found, Regular):
        with path.open("wb") as file:
            for offset, data in found.data:
                file.seek(offset)
                file.write(data)
            file.truncate(max(found.size, file.tell()))
    elif isinstance(found, Directory):
        path.mkdir()
        if found.opaque:
            os.setxattr(path, "user.overlay.opaque", b"y")
    elif isinstance(found, Symlink):
        path.symlink_to(found.target)
    elif isinstance(found, Fifo):
        os.mkfifo(path)
    elif isinstance(found, Whiteout):
        whiteout(path)
        return
    else:
        target = root / found.to
        if os.path.lexists(target) and stat.S_ISREG(os.lstat(target).st_mode):
            os.link(target, path)
        return
    os.lchown(path, found.owner, found.owner)
    if not isinstance(found, Symlink):
        os.chmod(path, found.mode)
    if isinstance(found, Regular | Directory):
        for key, value in found.attributes:
            os.setxattr(path, key, value)


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _merged(root: Path, below: Sequence[Path], name: Path) -> bool:
    """Whether a directory is merged with one right below it: the kernel's readdir shows the
    whiteouts of one that is not.
    """
    for parent in [*reversed(name.parents), name]:
        for layer in [root, *below[:1]]:
            path = layer / parent
            if layer is not root and not (os.path.lexists(path) and _is_directory(path)):
                return False
            if os.path.lexists(path) and "user.overlay.opaque" in os.listxattr(path):
                return False
    return bool(below)


def unite_links(lowers: Sequence[Path], upper: Path, work: Path, at: Path, spare: Path) -> None:
    """Make the hard links of lower files upper ones, for the kernel's overlayfs.

    Without an index, which needs privileges, it makes two files of one by copying up; upper links
    it keeps. Names that are hidden go on counting.
    """
    groups: dict[int, list[Path]] = {}
    with kernel_mounted(lowers, upper, work, at):
        for directory, _, files in os.walk(at):
            for file in files:
                path = Path(directory, file)
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                    groups.setdefault(status.st_ino, []).append(path)
        hidden: list[tuple[Path, int]] = []
        for first, *others in groups.values():
            status = os.lstat(first)
            hidden.append((first.relative_to(at), status.st_nlink - 1 - len(others)))
            os.chmod(first, stat.S_IMODE(status.st_mode))
            for other in others:
                os.unlink(other)
                os.link(first, other)
                os.utime(other.parent, ns=(LONG_AGO, LONG_AGO))
    for name, count in hidden:
        for _ in range(count):
            spare.mkdir(exist_ok=True)
            os.link(upper / name, spare / str(len(os.listdir(spare))))
