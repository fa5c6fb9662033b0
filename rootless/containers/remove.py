"""Removing containers, and stopping them first where that is asked.

Called by the command line, and by `rl run --rm` at its end. What belongs to
subordinate ids is removed as root of a user namespace.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path

from rootless.containers.store import Container, ContainerStore
from rootless.containers.volumes import VolumeStore
from rootless.errors import RlError
from rootless.images.store import ImageStore
from rootless.kernel import process, userns

_PATIENCE_SECONDS = 10.0


def remove(root: Path, container: Container, *, force: bool = False, volumes: bool = False) -> None:
    """Remove a container, and its anonymous volumes if asked; a running one only with force."""
    if container.state.status == "running":
        if not force:
            raise RlError(
                f"container {container.name} is running (stop it first, or use rl rm --force)"
            )
        kill(container)
    anonymous = container.extra.anonymous_volumes if volumes else ()
    userns.call(_remove_files, root, container, list(anonymous))


def remove_leftovers(root: Path) -> None:
    """Remove the --rm containers whose supervisor was killed before it could do so."""
    for container in ContainerStore(root).list():
        if container.auto_remove and container.state.status == "exited" and _unattended(container):
            remove(root, container, volumes=True)


def kill(container: Container) -> None:
    """Kill a running container and wait until it is gone and its end is recorded."""
    for known in (container.state.init, container.state.supervisor):
        if known is None or not known.alive():
            continue
        try:
            pidfd = os.pidfd_open(known.pid)
        except ProcessLookupError:
            continue
        # Asked again now that the number cannot come to mean another process.
        if known.alive():
            if known == container.state.init:
                process.send_signal(pidfd, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(_PATIENCE_SECONDS * 1000):
                raise RlError(f"container {container.name} could not be killed in time")
        os.close(pidfd)


def _unattended(container: Container) -> bool:
    supervisor = container.state.supervisor
    return supervisor is not None and not supervisor.alive()


def _remove_files(root: Path, container: Container, volumes: Sequence[str]) -> None:
    # Held so that no sweep removes the same files at the same time.
    with ImageStore(root).shared():
        ContainerStore(root).remove(container)
        for name in volumes:
            VolumeStore(root).remove(name)
