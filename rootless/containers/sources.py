"""Where on the host the mounts of a new container come from.

Owns the resolution of what was named: a bind's source is followed through its
links here, once and for all, and volumes get their names. Makes nothing.
Called by create.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rootless.containers.request import Mount, Request, mount_target, parse_volumes_from
from rootless.containers.store import Container, ContainerStore
from rootless.errors import RlError
from rootless.quota import Disk
from rootless.volumes.store import ANONYMOUS, VolumeStore


class Sources(NamedTuple):
    """Each mount with its source on the host, "" for a tmpfs; ``anonymous`` names volumes."""

    mounts: list[tuple[Mount, str]]
    anonymous: frozenset[str]

    def volumes(self) -> Iterator[tuple[str, dict[str, str], Disk]]:
        """Yield the name, the labels and the limit of each volume."""
        limits: dict[str, Disk] = {}
        for mount, _ in self.mounts:
            if mount.kind == "volume":
                limits[mount.source] = limits.get(mount.source, Disk()).or_else(mount.limit)
        for name, limit in limits.items():
            yield name, {ANONYMOUS: ""} if name in self.anonymous else {}, limit


def find_sources(root: Path, request: Request, image_volumes: tuple[str, ...]) -> Sources:
    """Return what the request, other containers and the image want mounted; RlError if missing.

    Of one target, the request's mount counts before --volumes-from and the image's.
    """
    volumes = VolumeStore(root)
    mounts: list[tuple[Mount, str]] = []
    anonymous: set[str] = set()
    for mount in request.mounts:
        match mount.kind:
            case "tmpfs":
                mounts.append((mount, ""))
            case "bind":
                source = _resolve(mount.source)
                if "U" in mount.options:
                    _check_may_be_given(source)
                mounts.append((mount, source))
            case "volume":
                name = mount.source or volumes.new_name()
                if not mount.source:
                    anonymous.add(name)
                mounts.append((mount._replace(source=name), str(volumes.path(name))))
    targets = {mount.target for mount, _ in mounts}
    for text in request.volumes_from:
        name, mode = parse_volumes_from(text)
        other = ContainerStore(root).get(name)
        for mount, source in _mounts_of(other, mode):
            if mount.target not in targets:
                targets.add(mount.target)
                mounts.append((mount, source))
                anonymous.update({mount.source}.intersection(other.extra.anonymous_volumes))
    for path in image_volumes:
        target = mount_target(path, path)
        if target not in targets:
            name = volumes.new_name()
            anonymous.add(name)
            mounts.append((Mount("volume", name, target), str(volumes.path(name))))
    return Sources(mounts, frozenset(anonymous))


def _resolve(source: str) -> str:
    """Follow all links of a bind's source, so that later ones can lead nowhere else."""
    try:
        return os.path.realpath(source, strict=True)
    except OSError as error:
        # Docker's -v would make a directory; it is Podman that spots the misspelt name.
        why = (error.strerror or "").lower()
        cure = " (create it first)" if isinstance(error, FileNotFoundError) else ""
        raise RlError(f"cannot mount {source}: {why}{cure}") from None


def _check_may_be_given(source: str) -> None:
    """Refuse to give away the user's home, or what holds it."""
    home = os.path.realpath(os.path.expanduser("~"))
    if os.path.commonpath([source, home]) == source:
        raise RlError(f"cannot give {source} to the container's user (U): your home is in it")


def _mounts_of(other: Container, mode: str) -> Iterator[tuple[Mount, str]]:
    """Yield the volumes and binds of another container, read-only or writable if ``mode`` says."""
    extra = other.extra
    for mount in other.config["mounts"]:
        target = mount["destination"]
        volume = extra.volumes.get(target)
        if volume is None and target not in extra.binds:
            continue
        options = [option for option in mount["options"] if not mode or option not in ("ro", "rw")]
        options += [mode] if mode else []
        source = mount["source"]
        if volume:
            part = extra.subpaths.get(target, "")
            yield Mount("volume", volume, target, tuple(options), subpath=part), source
        else:
            yield Mount("bind", source, target, tuple(options)), source
