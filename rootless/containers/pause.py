"""Freezing all processes of a container, and letting them go on.

Called by the command line. The cgroup is the container's; who is in it is frozen.
"""

from __future__ import annotations

from rootless.cgroups import place, tree
from rootless.containers.announce import announce
from rootless.containers.store import Container
from rootless.errors import RlError


def pause(container: Container) -> None:
    """Freeze a running container; RlError where it has no cgroup."""
    if container.state.status != "running":
        raise container.not_running()
    if container.paused:
        raise RlError(f"container {container.name} is already paused")
    tree.freeze(_cgroup(container), True)
    announce(container, "pause")


def unpause(container: Container) -> None:
    """Let a paused container go on."""
    if not container.paused:
        raise RlError(f"container {container.name} is not paused")
    thaw(container)


def thaw(container: Container) -> None:
    """Let a container go on if it is paused."""
    if container.paused:
        tree.freeze(container.state.cgroup, False)
        announce(container, "unpause")


def _cgroup(container: Container) -> str:
    if not container.state.cgroup:
        why = place.find().reason
        raise RlError(
            f"cannot pause container {container.name}: it has no cgroup"
            f"{f' ({why}; see rl info)' if why else ', for it was started with --cgroups=disabled'}"
        )
    return container.state.cgroup
