"""What a container has changed of its image, read from its upper directory.

Only directories that hold a change are looked at in the layers below. Reads as root of the user's
namespace, from directory descriptors, and follows no link. Called by `rl diff`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fuse_overlay.layers import OBJECT_FLAGS, is_opaque, open_directory, scan
from fuse_overlay.merge import Kind, merge
from rootless.containers.store import Container, unless_removed
from rootless.kernel import userns


class Change(NamedTuple):
    """One path of the container: added, changed or deleted, in Docker's letters."""

    kind: Literal["A", "C", "D"]
    path: str


def differences(container: Container, layers: Sequence[Path]) -> list[Change]:
    """Return what is not as in the image, by path; ``layers`` from the bottom to the top.

    Places that we made ourselves, for what every container has mounted, are not among them.
    """
    extra = container.extra
    asked = {mount["target"] for mount in extra.request["mounts"]} | set(extra.volumes)
    ours = {mount["destination"] for mount in container.config["mounts"]} - asked
    lower = [str(layer) for layer in reversed(layers)]
    with unless_removed(container):
        found = userns.call(_differences, str(container.path / "upper"), lower, ours)
    return sorted(found, key=lambda change: change.path)


def _differences(upper: str, lower: list[str], ours: Collection[str]) -> list[Change]:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    root = _Directory("", os.open(upper, flags), [os.open(layer, flags) for layer in lower])
    changes: list[Change] = []
    waiting = [root]
    while waiting:
        directory = waiting[-1]
        if directory.names:
            name, kind = directory.names.popitem()
            path = f"{directory.path}/{os.fsdecode(name)}"
            if path in ours:
                directory.made_by_us = True
            elif kind is Kind.DIRECTORY:
                waiting.append(directory.open(name, path))
            elif kind is Kind.WHITEOUT:
                if name in directory.below:
                    changes.append(Change("D", path))
                    directory.changed = True
            else:
                changes.append(Change("C" if name in directory.below else "A", path))
                directory.changed = True
            continue
        waiting.pop()
        if waiting and (kind_of_change := directory.change()):
            changes.append(Change(kind_of_change, directory.path))
            waiting[-1].changed = True
        directory.close()
    return changes


class _Directory:
    """A directory of the upper layer and those that it lies on, from the top down."""

    def __init__(self, path: str, upper: int, lowers: list[int], replaced: bool = False) -> None:
        self.path = path
        self.changed = False
        self.made_by_us = False
        self.names = scan(upper)
        self.below = merge([(index, scan(lower)) for index, lower in enumerate(lowers)])
        self._upper = upper
        self._lowers = lowers
        self._replaced = replaced
        if is_opaque(upper):
            # Made anew where another had been removed.
            gone = dict.fromkeys(self.below.keys() - self.names.keys(), Kind.WHITEOUT)
            self.names |= gone

    def open(self, name: bytes, path: str) -> _Directory:
        lowers = []
        for index in self.below.get(name, ()):
            fd = os.open(name, OBJECT_FLAGS, dir_fd=self._lowers[index])
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                os.close(fd)
                break
            lowers.append(fd)
            if is_opaque(fd):
                break
        replaced = name in self.below and not lowers
        return _Directory(path, open_directory(name, self._upper), lowers, replaced)

    def change(self) -> Literal["A", "C"] | None:
        """Return what has become of the directory itself, once all in it has been seen."""
        if not self._lowers:
            return "C" if self._replaced else "A"
        now, before = os.fstat(self._upper), os.fstat(self._lowers[0])
        if self.changed or _described(now) != _described(before):
            return "C"
        return None if self.made_by_us or now.st_mtime_ns == before.st_mtime_ns else "C"

    def close(self) -> None:
        for fd in (self._upper, *self._lowers):
            os.close(fd)


def _described(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid
