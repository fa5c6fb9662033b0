"""Networks of a container that runs: its supervisor is asked to connect and disconnect it.

Decides nothing, and changes nothing on disk. Called by ``connections``.
"""

from __future__ import annotations

from typing import Any

from rootless.containers import console
from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.networks.user import Attachment, Network


def check(container: Container) -> None:
    """Raise RlError if a running container cannot be connected to anything."""
    _ask(container, {"network_check": True})


def join(container: Container, network: Network, attachment: Attachment) -> None:
    """Connect a running container; RlError if that fails."""
    asked = {"network": network._asdict(), "attachment": attachment._asdict()}
    _ask(container, {"network_join": asked})


def leave(container: Container, network_id: str) -> None:
    """Disconnect a running container; RlError if that fails."""
    _ask(container, {"network_leave": network_id})


def _ask(container: Container, message: dict[str, Any]) -> None:
    channel = console.connect(container.path)
    if channel is None:
        raise RlError(f"container {container.name} has ended meanwhile")
    try:
        channel.send(message)
        # Whatever else it says to everyone comes in between.
        answer: dict[str, Any] | None = {}
        while answer is not None and not answer.keys() & {"done", "error"}:
            answer, _ = channel.receive()
    finally:
        channel.close()
    if answer is None:
        raise RlError(f"container {container.name} has ended meanwhile")
    if "error" in answer:
        raise RlError(str(answer["error"]))
