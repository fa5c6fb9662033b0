"""A container's disk limit: what its upper directory may hold, enforced by its overlay server.

Owns its syntax, its default in the configuration ([storage]), and the way by which a server that
runs learns of another one. Called by create, by the supervisor and by `rl update`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rootless.errors import RlError

if TYPE_CHECKING:
    from rootless.containers.store import Container, ContainerStore

# The files that what every container has is mounted on, their directories, and a few more.
_LEAST_SIZE: Final = 64 << 10
_LEAST_INODES: Final = 16


@dataclass(frozen=True, slots=True)
class Disk:
    """At most ``size`` bytes and ``inodes`` files; 0 is no limit, None what the site says."""

    size: int | None = None
    inodes: int | None = None

    def or_else(self, other: Disk) -> Disk:
        """Return this limit, with that of ``other`` where nothing is said."""
        return Disk(
            other.size if self.size is None else self.size,
            other.inodes if self.inodes is None else self.inodes,
        )

    @property
    def exists(self) -> bool:
        """Whether anything is limited."""
        return bool(self.size or self.inodes)


def parse(options: Iterable[str]) -> Disk:
    """Read --storage-opt: ``size=2G``, ``inodes=100000``; RlError for any other."""
    disk = Disk()
    for option in options:
        name, given, text = option.partition("=")
        if name not in ("size", "inodes") or not given:
            raise RlError(
                f"unknown storage option {option!r} (size=2G and inodes=100000 are known)"
            )
        disk = replace(disk, **{name: _number(name, text)})
    return disk


def default() -> Disk:
    """Return what the configuration says of containers that say nothing."""
    from rootless import config

    given = config.section("storage")
    if unknown := given.keys() - {"size", "inodes"}:
        raise RlError(f"the configuration's [storage] has no {min(unknown)}: size, inodes")
    try:
        return Disk(**{name: _number(name, str(value)) for name, value in given.items()})
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
    container = store.update(container, disk=asdict(disk))
    announce(container, "update")
    if not container.active:
        return True
    channel = console.connect(container.path)
    if channel is None:
        return True
    reader, writer = os.pipe()
    channel.send({"limit": asdict(disk)}, writer)
    os.close(writer)
    with open(reader, "rb") as answer:
        # The server writes a byte, or all who hold the other end close it.
        applied = bool(answer.read(1))
    channel.close()
    return applied


def _number(name: str, text: str) -> int:
    from rootless.sizes import LARGEST, parse_size

    if name == "size":
        number, least, shown = parse_size(text), _LEAST_SIZE, "64k"
    elif not (text.isascii() and text.isdecimal()):
        raise RlError(f"invalid inodes {text!r}: expected a number of files")
    elif len(text) > len(str(LARGEST)) or int(text) > LARGEST:
        raise RlError(f"invalid inodes {text[:100]!r}: the largest number is {LARGEST}")
    else:
        number, least, shown = int(text), _LEAST_INODES, str(_LEAST_INODES)
    if 0 < number < least:
        raise RlError(f"{name}={text} is too little for a container to start: at least {shown}")
    return number


def describe(disk: Disk) -> dict[str, str]:
    """Return the limit as Docker's StorageOpt shows it."""
    values: dict[str, Any] = asdict(disk)
    return {name: str(value) for name, value in values.items() if value}
