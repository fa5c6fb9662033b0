"""Waiting for a container's end or health: `rl wait`.

The supervisor tells the end, or its death does; everything else is seen in
the container's directory, when the kernel says that something changed there.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from typing import Final

from rootless.containers.console import connect
from rootless.containers.state import LOST
from rootless.containers.store import Container, ContainerStore
from rootless.errors import ContainerNotFound, RlError
from rootless.kernel import syscalls
from rootless.kernel.polling import wait

_CHUNK: Final = 65536


def wait_for_end(store: ContainerStore, container: Container) -> int:
    """Return the exit code of a container, when it has ended."""
    if container.active and (channel := connect(container.path)):
        channel.send({"attach": []})
        message: dict[str, object] | None = {}
        while message is not None and "exit_code" not in message:
            message, _ = channel.receive()
        channel.close()
        if message is not None:
            return int(str(message["exit_code"]))
    try:
        # Its supervisor was killed, or just about to end.
        return store.by_id(container.id).state.exit_code
    except ContainerNotFound:
        return LOST


def is_running(container: Container) -> bool:
    """Tell whether the command runs."""
    return container.state.status == "running"


def has_health(status: str) -> Callable[[Container], bool]:
    """Return what tells whether a container runs and is that healthy."""
    return lambda container: (
        is_running(container) and container.health is not None
        and container.health["Status"] == status
    )  # fmt: skip


def wait_until(
    store: ContainerStore, container: Container, reached: Callable[[Container], bool]
) -> None:
    """Return when a container has ``reached`` it; RlError if it ends before."""
    watch = syscalls.inotify_init()
    pidfd = -1
    try:
        syscalls.inotify_add_watch(watch, str(container.path), syscalls.IN_MOVED_TO)
        while not reached(current := store.by_id(container.id)):
            if current.state.status == "exited":
                raise RlError(f"container {container.name} does not run")
            interests = {watch: select.POLLIN}
            supervisor = current.state.supervisor
            if pidfd < 0 and supervisor is not None and supervisor.alive():
                with contextlib.suppress(ProcessLookupError):
                    pidfd = os.pidfd_open(supervisor.pid)
            if pidfd >= 0:
                interests[pidfd] = select.POLLIN
            ready = wait(interests)
            if watch in ready:
                os.read(watch, _CHUNK)
            if pidfd in ready:
                os.close(pidfd)
                pidfd = -1
    finally:
        if pidfd >= 0:
            os.close(pidfd)
        os.close(watch)
