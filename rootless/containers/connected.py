"""The networks of a container that has user networks, for one run: those, and a way out of them.

Each is an interface of its network namespace, which the holder plugs into the network. The way
out is pasta or slirp4netns as without them, so that nothing between a client and a published port
translates addresses. Called by the supervisor through ``network``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rootless.errors import RlError
from rootless.networks.helper import Helper
from rootless.networks.user import Attachment, Network

if TYPE_CHECKING:
    from rootless.holder.client import Holder


class Connected:
    """A container's networks, as ``Helper`` is its only one.

    ``way_out`` is None where all networks are internal. The ``holder`` is not ours to close.
    """

    def __init__(
        self,
        container_id: str,
        holder: Holder,
        networks: Sequence[tuple[Network, Attachment]],
        way_out: Helper | None,
    ) -> None:
        self._container_id = container_id
        self._holder = holder
        self._networks = networks
        self._way_out = way_out
        self._namespace = -1
        self._joined = False

    @property
    def ready(self) -> bool:
        """Whether all of them are there."""
        return self._joined and (self._way_out is None or self._way_out.ready)

    def start(self, announced: int, userns: int, netns: int) -> None:
        """Connect a network namespace, as ``Helper.start``; RlError where one is not to be had."""
        self._namespace = os.dup(netns)
        if self._way_out is not None:
            self._way_out.start(announced, userns, netns)
        else:
            for fd in (announced, userns, netns):
                os.close(fd)
        for network, attachment in self._networks:
            self.join(network, attachment)
        self._joined = True

    def join(self, network: Network, attachment: Attachment) -> None:
        """Connect the container to one more network; RlError where that fails."""
        message = {
            "join": network._asdict(),
            "attachment": attachment._asdict(),
            "container": self._container_id,
        }
        self._holder.ask("network", message, self._namespace)

    def leave(self, network_id: str) -> None:
        """Disconnect it from a network; RlError where that fails."""
        self._holder.ask("network", {"leave": network_id})

    def watched(self) -> dict[int, int]:
        """Return what to poll for: the end of the way out."""
        return self._way_out.watched() if self._way_out is not None else {}

    def advance(self) -> None:
        """Take note of what has happened; RlError if the way out has failed."""
        if self._way_out is not None:
            self._way_out.advance()

    def end(self) -> None:
        """Have the way out end; ``close`` waits for it."""
        if self._way_out is not None:
            self._way_out.end()

    def close(self) -> None:
        """End the way out; the networks are given back with the holder."""
        if self._way_out is not None:
            self._way_out.close()
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1


def change(network: object, message: dict[str, Any]) -> dict[str, Any]:
    """Connect or disconnect a container that runs, as a command asks for; return the answer."""
    if not isinstance(network, Connected):
        return {
            "error": "it runs without a user network, and can be connected to one only when it "
            "starts (stop it first)"
        }
    try:
        if "network_join" in message:
            asked = message["network_join"]
            network.join(Network(**asked["network"]), Attachment(**asked["attachment"]))
        else:
            network.leave(message["network_leave"])
    except RlError as error:
        return {"error": str(error)}
    return {"done": True}
