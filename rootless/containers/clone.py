"""PID 1 is cloned: which namespaces are new, and what it takes along.

Called by the supervisor, which keeps the other ends of what PID 1 takes.
"""

from __future__ import annotations

import os
from typing import Final

from rootless.channel import Channel
from rootless.containers import idmaps, init, interpreter
from rootless.containers.annotation import Spec
from rootless.containers.sharing import Sharing
from rootless.containers.streams import Streams
from rootless.kernel import process, syscalls, userns

# But for that of cgroups, which begins where a process is: PID 1 makes it.
_NAMESPACES: Final = {
    "user": syscalls.CLONE_NEWUSER,
    "mount": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "network": syscalls.CLONE_NEWNET,
}


def clone(
    spec: Spec, streams: Streams, channel: Channel, place: int, sharing: Sharing
) -> process.Child:
    """Start PID 1 in its namespaces and its cgroup, and close what only it needs."""
    flags = 0
    for namespace in spec["linux"]["namespaces"]:
        flags |= _NAMESPACES.get(namespace["type"], 0)
    theirs = streams.container_ends
    maps, trees = idmaps.maps_of(spec), dict(sharing.trees)
    changeable = interpreter.is_changeable(maps)
    try:
        return sharing.clone(
            lambda: init.main(spec, theirs, channel, trees, changeable=changeable),
            flags,
            maps,
            keep=[channel.fileno(), *theirs],
            cgroup=place,
        )
    except OSError as error:
        raise userns.creation_error(error) from None
    finally:
        channel.close()
        for fd in (*theirs, *([place] if place >= 0 else [])):
            os.close(fd)
