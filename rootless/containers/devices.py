"""The devices of the host that a container gets: those asked for, or all of a privileged one.

Called by create. Looks at them and opens nothing: to open a device may do something.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from rootless.containers.namespaces import Device
from rootless.containers.request import mount_target
from rootless.errors import RlError

# The container has file systems of its own there, or links to them.
_OWN_DIRECTORIES: Final = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd")
# What every container has, and the terminals of the host: none may be taken over from inside.
_OWN: Final = ("null", "zero", "full", "random", "urandom", "console", "ptmx")


class Node(NamedTuple):
    """A device node of the host, with all links followed, and where it goes in the container."""

    source: str
    target: str
    kind: Literal["b", "c"]
    major: int
    minor: int


def find(wanted: Iterable[Device]) -> list[Node]:
    """Return the nodes that --device means, all those in a directory; RlError for what is none."""
    nodes: dict[str, Node] = {}
    for device in wanted:
        try:
            source = os.path.realpath(device.source, strict=True)
        except OSError as error:
            raise RlError(f"cannot add device {device.source}: {error.strerror}") from None
        pairs = [(source, device.target)]
        if os.path.isdir(source):
            below = sorted(_nodes(source))
            pairs = [(path, device.target + path.removeprefix(source)) for path in below]
            if not pairs:
                raise RlError(f"cannot add device {source}: no device that you may open is in it")
        for path, target in pairs:
            nodes[target] = _node(path, mount_target(target, device.target))
    return list(nodes.values())


def _node(source: str, target: str) -> Node:
    found = os.stat(source)
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise RlError(f"cannot add device {source}: not a device node")
    if not (os.access(source, os.R_OK) or os.access(source, os.W_OK)):
        raise RlError(
            f"cannot add device {source}: you may not open it (ask the administrator to make you a "
            "member of its group)"
        )
    kind: Literal["b", "c"] = "c" if stat.S_ISCHR(found.st_mode) else "b"
    return Node(source, target, kind, os.major(found.st_rdev), os.minor(found.st_rdev))


def host_devices() -> list[str]:
    """Return the paths of the host's device nodes that this user may open, as Podman does."""
    return sorted(path for path in _nodes("/dev") if not _is_own(path))


def _nodes(directory: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.path not in _OWN_DIRECTORIES:
                yield from _nodes(entry.path)
        elif _is_device(entry):
            yield entry.path


def _is_device(entry: os.DirEntry[str]) -> bool:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        return False
    return os.access(entry.path, os.R_OK) or os.access(entry.path, os.W_OK)


def _is_own(path: str) -> bool:
    name = path.removeprefix("/dev/")
    return name in _OWN or name.startswith("tty")
