"""Removing containers, and stopping them first where that is asked; removing volumes.

Called by the command line, and by `rl run --rm` at its end. What belongs to
subordinate ids is removed as root of a user namespace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from rootless.containers import stop
from rootless.containers.announce import announce
from rootless.containers.store import Container, ContainerStore
from rootless.errors import ContainerNotFound, RlError
from rootless.images.store import ImageStore
from rootless.kernel import userns
from rootless.trees import remove_tree
from rootless.volumes.store import VolumeStore


def remove(root: Path, container: Container, *, force: bool = False, volumes: bool = False) -> None:
    """Remove a container, and its anonymous volumes if asked; an active one only with force."""
    if container.active:
        if not force and container.paused:
            raise RlError(
                f"container {container.name} is paused and must be unpaused first "
                "(or use rl rm --force)"
            )
        if not force:
            # One that is just being started says "created" still.
            shown = "restarting" if container.state.status == "restarting" else "running"
            raise RlError(
                f"container {container.name} is {shown} (stop it first, or use rl rm --force)"
            )
        stop.kill(container)
    stop.wait_for_supervisor(container)
    _sweep_cgroup(container)
    if not container.owns_processes:
        # Its supervisor may have been killed before it could see to this.
        from rootless.containers.strays import kill_leftovers

        kill_leftovers(container.id)
    _discard(root, container, volumes=volumes)


def remove_own(root: Path, container_id: str) -> None:
    """Remove a container that this process made and ran, with its anonymous volumes."""
    with contextlib.suppress(ContainerNotFound):
        _discard(root, ContainerStore(root).get(container_id), volumes=True)


def _discard(root: Path, container: Container, *, volumes: bool) -> None:
    anonymous = list(container.extra.anonymous_volumes) if volumes else []
    in_namespace = bool(anonymous)
    if not in_namespace:
        try:
            # Mostly all of it is the user's own: what the container's root wrote.
            _remove_files(root, container.id, [])
        except PermissionError:
            in_namespace = True
    if in_namespace:
        userns.call(_remove_files, root, container.id, anonymous)
    announce(container, "destroy")


def remove_damaged(root: Path, container_id: str) -> None:
    """Remove a container of which nothing is known but its ID."""
    userns.call(_remove_files, root, container_id, [])


def remove_leftovers(root: Path) -> None:
    """Remove what supervisors that were killed left: --rm containers, and cgroups."""
    for container in ContainerStore(root).list():
        if container.state.status == "exited" and _unattended(container):
            if container.auto_remove:
                remove(root, container, volumes=True)
            else:
                _sweep_cgroup(container)


def _sweep_cgroup(container: Container) -> None:
    if container.state.cgroup:
        from rootless.cgroups import tree

        tree.sweep(container.state.cgroup)


def _unattended(container: Container) -> bool:
    supervisor = container.state.supervisor
    return supervisor is not None and not supervisor.alive()


def remove_volume(root: Path, name: str) -> None:
    """Remove a volume and what it holds; RlError if a container has it, running or not."""
    with ImageStore(root).shared():
        userns.call(remove_tree, _withdraw(root, name))


def _remove_files(root: Path, container_id: str, volumes: Sequence[str]) -> None:
    # Held so that no sweep removes the same files at the same time.
    with ImageStore(root).shared():
        ContainerStore(root).remove(container_id)
        for name in volumes:
            # Another container may have it, too.
            with contextlib.suppress(RlError):
                remove_tree(_withdraw(root, name))


def _withdraw(root: Path, name: str) -> Path:
    containers = ContainerStore(root)
    # No container that wants it can appear meanwhile.
    with containers.locked():
        if users := containers.used_volumes().get(name):
            by = ", ".join(sorted(users))
            raise RlError(f"volume {name} is in use by container {by} (remove that first)")
        return VolumeStore(root).withdraw(name)
