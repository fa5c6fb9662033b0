"""A child in a user namespace that is itself a child of another one of ours, not of the host's.

Owns how the ids of such a child are mapped. Root of the outer namespace has all capabilities over
those inside it, which is what containers that share something are made for. Never decides who is
nested in what. Called by containers for PID 1. See user_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rootless.errors import RlError
from rootless.kernel import process, sibling
from rootless.kernel.userns import IdMap, Maps


class Outer(NamedTuple):
    """The user namespace that a child is nested in: a descriptor of it, and its own maps."""

    userns: int
    maps: Maps
    shared: tuple[tuple[int, int], ...] = ()
    """Namespaces that the child is in besides: a descriptor and a CLONE_NEW* for each."""


def translate(maps: Maps, outer: Maps) -> Maps:
    """Return the maps of a namespace as one that has the maps ``outer`` is told them.

    RlError where they name an id that ``outer`` does not have.
    """
    return Maps(
        tuple(_translated(maps.uids, outer.uids)), tuple(_translated(maps.gids, outer.gids))
    )


def _translated(entries: Iterable[IdMap], outer: Sequence[IdMap]) -> Iterable[IdMap]:
    for entry in entries:
        done = 0
        while done < entry.size:
            wanted = entry.outside + done
            for other in outer:
                if other.outside <= wanted < other.outside + other.size:
                    break
            else:
                raise RlError(f"cannot map ids: {wanted} is not mapped where it is to be used")
            skipped = wanted - other.outside
            size = min(entry.size - done, other.size - skipped)
            yield IdMap(entry.inside + done, other.inside + skipped, size)
            done += size


def fork(
    main: Callable[[], int],
    flags: int,
    maps: Maps,
    outer: Outer,
    keep: Iterable[int] = (),
    cgroup: int = -1,
) -> process.Child:
    """Run ``main`` in a child of ours with new namespaces, the user's among them, inside ``outer``.

    As ``process.fork``, but the ids are mapped when it returns, and until then ``main`` has to
    wait; ``maps`` name those of the host.
    """
    inner = translate(maps, outer.maps)
    return sibling.fork(
        main,
        flags,
        sibling.Entered(outer.userns, outer.shared),
        keep,
        cgroup,
        dumpable=True,
        then=lambda pid: _write_maps(pid, inner),
        failed="cannot make a nested user namespace",
    )


def _write_maps(pid: int, maps: Maps) -> None:
    try:
        for name, entries in (("uid_map", maps.uids), ("gid_map", maps.gids)):
            text = "".join(f"{entry.inside} {entry.outside} {entry.size}\n" for entry in entries)
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
    except OSError as error:
        raise RlError(f"cannot map ids: {error.strerror}") from None
