"""Who a new container is on the host: its id maps, and the user it brings along.

Owns the choice, and ROOT/userns.lock, under which ranges for --userns=auto are
given, so that no two containers have one id. Called by create.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rootless.containers import idmaps
from rootless.containers.request import Request
from rootless.containers.store import Container, ContainerStore
from rootless.kernel import userns
from rootless.kernel.userns import IdMap, Maps


class Identity(NamedTuple):
    """``user`` is who runs inside if nobody else is asked for; ``accounts`` name him there."""

    maps: Maps
    user: str = ""
    accounts: Mapping[str, str] = {}


@contextlib.contextmanager
def choose(root: Path, request: Request, image_user: str) -> Iterator[Identity]:
    """Choose for a container that is there when the block ends."""
    mode = idmaps.Mode.parse(request.namespaces.userns)
    match mode.kind:
        case "single":
            yield Identity(userns.own_maps())
        case "auto":
            with _locked(root / "userns.lock"):
                wanted = _number(request.user or image_user)
                taken = _taken(ContainerStore(root))
                yield Identity(idmaps.choose(mode, userns.user_maps(), taken, wanted))
        case "keep-id":
            maps = idmaps.choose(mode, userns.user_maps())
            yield Identity(maps, *_kept_user(mode))
        case _:
            yield Identity(idmaps.choose(mode, userns.user_maps()))


def give_volume(directory: Path, maps: Maps) -> None:
    """Give a new volume to the root of the container it is made for, if its maker is nobody there.

    Otherwise the container could not write to it.
    """
    if all(entry.outside != os.getuid() for entry in maps.uids):
        user = userns.user_maps()
        userns.call(os.chown, directory, _same(maps.uids, user.uids), _same(maps.gids, user.gids))


def _same(container: tuple[IdMap, ...], user: tuple[IdMap, ...]) -> int:
    """Return what the user's own namespace calls the container's id 0."""
    (outside,) = (entry.outside for entry in container if entry.inside == 0)
    return next(
        entry.inside + outside - entry.outside
        for entry in user
        if entry.outside <= outside < entry.outside + entry.size
    )


def _kept_user(mode: idmaps.Mode) -> tuple[str, dict[str, str]]:
    uid = os.getuid() if mode.uid is None else mode.uid
    gid = os.getgid() if mode.gid is None else mode.gid
    name = userns.user_name(os.getuid())
    if name.isdecimal() or not name.isprintable() or set(":,/ ") & set(name):
        name = "user"
    # Podman's entries; the directory is filled in where it is known.
    accounts = {"passwd": f"{name}:*:{uid}:{gid}:{name}:/:/bin/sh", "group": f"{name}:x:{gid}:"}
    return f"{uid}:{gid}", accounts


def _number(user: str) -> int:
    number = user.partition(":")[0]
    return int(number) if number.isascii() and number.isdecimal() and len(number) <= 10 else 0


def _taken(containers: ContainerStore) -> list[Maps]:
    return [
        idmaps.maps_of(container.config)
        for container in containers.list()
        if _has_own_range(container)
    ]


def _has_own_range(container: Container) -> bool:
    """Tell whether a container has ids that others with --userns=auto must not have."""
    extra = container.extra
    if not extra.joined:
        return str(extra.request.get("namespaces", {}).get("userns", "")).startswith("auto")
    # It has those of whom it joined, who may be gone; any other mode takes all that there are.
    ranges = userns.user_maps().uids[1:]
    maps = idmaps.maps_of(container.config)
    return sum(entry.size for entry in maps.uids) < sum(entry.size for entry in ranges) > 1


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
