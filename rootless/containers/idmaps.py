"""Which ids of the host the ids of a container are: --userns, as rootless Podman means it.

Owns its syntax and the maps made of it. Pure. Files are stored under the ids of
the user's own map whatever a container's map is, so that images, layers and
what containers write are the same for all of them. Called by the command line
(for its errors), by create and by the supervisor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

from rootless.containers.annotation import Spec
from rootless.errors import RlError
from rootless.kernel.userns import IdMap, Maps

# Podman's least: enough for the users of most images.
_AUTO_SIZE: Final = 1024
_LARGEST_ID: Final = 2**32 - 2


class Mode(NamedTuple):
    """What --userns says; ``uid`` and ``gid`` are those of keep-id, None for the user's own."""

    kind: Literal["default", "keep-id", "nomap", "auto", "single"]
    uid: int | None = None
    gid: int | None = None
    size: int | None = None

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Read ``keep-id[:uid=,gid=]``, ``nomap``, ``auto[:size=]``, ``single``, ``host`` or ""."""
        name, _, rest = text.partition(":")
        numbers = dict(_numbers(text, rest))
        match name:
            case "" | "host" if not rest:
                # In Podman's words the user's own namespace is the host's.
                return cls("default")
            case "nomap" if not rest:
                return cls("nomap")
            case "single" if not rest:
                return cls("single")
            case "keep-id" if {"uid", "gid"}.issuperset(numbers):
                return cls("keep-id", numbers.get("uid"), numbers.get("gid"))
            case "auto" if {"size"}.issuperset(numbers) and numbers.get("size") != 0:
                return cls("auto", size=numbers.get("size"))
        raise RlError(
            f"invalid --userns {text!r}: there are keep-id[:uid=N,gid=N], nomap, auto[:size=N], "
            "single and host"
        )


def _numbers(text: str, options: str) -> Iterator[tuple[str, int]]:
    for item in filter(None, options.split(",")):
        name, _, value = item.partition("=")
        if not (value.isascii() and value.isdecimal()) or int(value) > _LARGEST_ID:
            raise RlError(f"invalid --userns {text!r}: {item!r} is no number")
        yield name, int(value)


def maps_of(spec: Spec) -> Maps:
    """Return the id maps of a container's user namespace."""

    def entries(name: str) -> tuple[IdMap, ...]:
        return tuple(
            IdMap(entry["containerID"], entry["hostID"], entry["size"])
            for entry in spec["linux"][name]
        )

    return Maps(entries("uidMappings"), entries("gidMappings"))


def choose(mode: Mode, user: Maps, taken: Iterable[Maps] = (), user_id: int = 0) -> Maps:
    """Return a container's maps; ``user`` are the user's own, which begin with himself.

    An auto gets a range apart from those of the maps in ``taken``, with room for ``user_id``.
    """
    (own_uid, *uids), (own_gid, *gids) = user.uids, user.gids
    match mode.kind:
        case "keep-id":
            uid = own_uid.outside if mode.uid is None else mode.uid
            gid = own_gid.outside if mode.gid is None else mode.gid
            return Maps(_keep(own_uid, uids, uid), _keep(own_gid, gids, gid))
        case "nomap":
            return Maps(_slice(uids, 0, _total(uids), 0), _slice(gids, 0, _total(gids), 0))
        case "single":
            return Maps((own_uid,), (own_gid,))
        case "auto":
            size = mode.size or max(_AUTO_SIZE, user_id + 1)
            used = list(taken)
            return Maps(
                _free(uids, size, [entry for maps in used for entry in maps.uids]),
                _free(gids, size, [entry for maps in used for entry in maps.gids]),
            )
    return user


def serving(container: Maps, storage: Maps, *, hidden: bool = True) -> dict[str, Any]:
    """Return how the overlay server of a container serves what is stored, as its arguments.

    It shares no user namespace with processes that it is not ``hidden`` from.
    """
    apart = None if hidden and container == storage else storage
    return {"maps": apart, "owners": owners(container, storage)}


def owners(container: Maps, storage: Maps) -> dict[str, Any] | None:
    """Return how the stored ids of files are shown in a container, None for as they are.

    As arguments of the overlay's Ownership. A container that has root alone sees him as the owner
    of all. A user whose own id is beyond all that can be stored is stored as the last.
    """
    if [entry.size for entry in (*container.uids, *container.gids)] == [1, 1]:
        return {"squash_uid": 0, "squash_gid": 0}
    uids, gids = _shown(container.uids, storage.uids), _shown(container.gids, storage.gids)
    if not uids and not gids:
        return None
    return {"uids": uids, "gids": gids}


def _shown(container: Iterable[IdMap], user: tuple[IdMap, ...]) -> list[tuple[int, int, int]]:
    total = _total(user)
    beyond = [entry for entry in container if entry.inside >= total and entry.size == 1]
    if not beyond:
        return []
    return [(0, 0, total - 1), (total - 1, beyond[0].inside, 1)]


def _total(ranges: Iterable[IdMap]) -> int:
    return sum(entry.size for entry in ranges)


def _keep(own: IdMap, others: list[IdMap], inside: int) -> tuple[IdMap, ...]:
    """Map ``inside`` to the user, and the ids below and above it to the others."""
    below = min(inside, _total(others))
    return (
        *_slice(others, 0, below, 0),
        IdMap(inside, own.outside, 1),
        *_slice(others, below, _total(others) - below, inside + 1),
    )


def _slice(ranges: Iterable[IdMap], start: int, count: int, inside: int) -> tuple[IdMap, ...]:
    """Map ``count`` ids from ``inside`` on to those of ``ranges`` from the ``start``-th on."""
    found = []
    for entry in ranges:
        skipped = min(start, entry.size)
        start -= skipped
        size = min(entry.size - skipped, count)
        if size:
            found.append(IdMap(inside, entry.outside + skipped, size))
            inside += size
            count -= size
    return tuple(found)


def _free(ranges: list[IdMap], size: int, used: list[IdMap]) -> tuple[IdMap, ...]:
    """Map ``size`` ids from 0 on to the first of ``ranges`` that none of ``used`` has."""
    for entry in ranges:
        first = entry.outside
        for other in sorted(used, key=lambda taken: taken.outside):
            if other.outside < first + size and first < other.outside + other.size:
                first = other.outside + other.size
        if first + size <= entry.outside + entry.size:
            return (IdMap(0, first, size),)
    raise RlError(
        f"--userns=auto finds no free range of {size} ids (remove a container that has one, or "
        "choose fewer with auto:size=N)"
    )
