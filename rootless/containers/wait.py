"""Waiting for a container's end, as `docker wait`: the supervisor tells it, or its death does."""

from __future__ import annotations

from rootless.containers.console import connect
from rootless.containers.store import LOST, Container, ContainerStore
from rootless.errors import ContainerNotFound


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
