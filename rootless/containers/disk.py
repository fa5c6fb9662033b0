"""A container's disk limit: what its upper directory may hold, enforced by its overlay server.

Owns its default in the configuration ([storage]), and the way by which a server that runs learns
of another one. Called by create, by the supervisor and by `rl update`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootless.errors import RlError
from rootless.quota import Disk, number
from rootless.values import as_dict

if TYPE_CHECKING:
    from rootless.containers.store import Container, ContainerStore


def default() -> Disk:
    """Return what the configuration says of containers that say nothing."""
    from rootless import config

    given = config.section("storage")
    if unknown := given.keys() - {"size", "inodes"}:
        raise RlError(f"the configuration's [storage] has no {min(unknown)}: size, inodes")
    try:
        return Disk(**{name: number(name, str(value)) for name, value in given.items()})
    except RlError as error:
        raise RlError(f"the configuration's [storage]: {error}") from None


def of(container: Container) -> Disk:
    """Return a container's limit as it is now."""
    asked = container.extra.request.get("disk") or {}
    return Disk(**(container.state.disk or asked))


def update(store: ContainerStore, container: Container, changes: Disk) -> bool:
    """Give a container another limit; False if it takes effect only when it is started again."""
    from rootless.containers import console
    from rootless.containers.announce import announce

    disk = changes.or_else(of(container))
    container = store.update(container, disk=as_dict(disk))
    announce(container, "update")
    if not container.active:
        return True
    channel = console.connect(container.path)
    if channel is None:
        return True
    reader, writer = os.pipe()
    channel.send({"limit": as_dict(disk)}, writer)
    os.close(writer)
    with open(reader, "rb") as answer:
        # The server writes a byte, or all who hold the other end close it.
        applied = bool(answer.read(1))
    channel.close()
    return applied
