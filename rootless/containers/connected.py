"""The networks of a container that has user networks, for one run: those, and a way out of them.

Each is an interface of its network namespace, which the holder plugs into the network. The way
out is pasta or slirp4netns as without them, so that nothing between a client and a published port
translates addresses. Called by the supervisor through ``network``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from rootless.errors import RlError
from rootless.kernel.polling import wait
from rootless.networks.helper import Helper
from rootless.networks.ports import Port
from rootless.networks.programs import INTERFACE
from rootless.networks.user import Attachment, Network

if TYPE_CHECKING:
    from rootless.channel import Channel
    from rootless.holder.client import Holder

# The interface of the way out where a user network has its usual name.
_BESIDE: Final = "tap0"
# What the way out of a container that runs may take to be there, on a loaded machine.
_PATIENCE_SECONDS: Final = 60.0


class Connected:
    """A container's networks, as ``Helper`` is its only one.

    There is a way out while one of them has one; ``ports`` lead in by it. The ``holder`` is not
    ours to close.
    """

    def __init__(
        self,
        container_id: str,
        holder: Holder,
        networks: Sequence[tuple[Network, Attachment]],
        way_out: Callable[[str], tuple[Helper, Sequence[Port]]],
        published: Callable[[Sequence[Port]], None],
        *,
        optional: bool,
    ) -> None:
        """Prepare to connect; RlError as from ``way_out``, which makes one for an interface's name.

        ``published`` hears of the ports when they change. The way out is ``optional`` where the
        container was made with user networks: without them it has none.
        """
        self._container_id = container_id
        self._holder = holder
        self._networks = {network.id: (network, attachment) for network, attachment in networks}
        self._make_way_out = way_out
        self._published = published
        self._optional = optional
        self._way_out: Helper | None = None
        self.ports: Sequence[Port] = ()
        if self._leads_out():
            self._way_out, self.ports = way_out(self._interface())
        # Those of the container, while it runs: the user namespace, the network namespace.
        self._namespaces: tuple[int, ...] = ()
        self._joined = False

    def _leads_out(self) -> bool:
        if not self._networks:
            return not self._optional
        return not all(network.internal for network, _ in self._networks.values())

    def _interface(self) -> str:
        taken = {attachment.interface for _, attachment in self._networks.values()}
        return _BESIDE if INTERFACE in taken else INTERFACE

    @property
    def ready(self) -> bool:
        """Whether all of them are there."""
        return self._joined and (self._way_out is None or self._way_out.ready)

    def start(self, announced: int, userns: int, netns: int) -> None:
        """Connect a network namespace, as ``Helper.start``; RlError where one is not to be had.

        The interface eth0 is the first one, whosever it is: many a program takes its address for
        the container's.
        """
        self._namespaces = (os.dup(userns), os.dup(netns))
        try:
            if self._way_out is None or self._interface() == _BESIDE:
                self._join_all()
        except BaseException:
            for fd in (announced, userns, netns):
                os.close(fd)
            raise
        if self._way_out is not None:
            self._way_out.start(announced, userns, netns)
            self.advance()
        else:
            for fd in (announced, userns, netns):
                os.close(fd)

    def _join_all(self) -> None:
        for network, attachment in self._networks.values():
            self._join(network, attachment)
        self._joined = True

    def _join(self, network: Network, attachment: Attachment) -> None:
        message = {
            "join": network._asdict(),
            "attachment": attachment._asdict(),
            "container": self._container_id,
        }
        self._holder.ask("network", message, self._namespaces[1])

    def join(self, network: Network, attachment: Attachment) -> None:
        """Connect the container to one more network; RlError where that fails."""
        self._join(network, attachment)
        self._networks[network.id] = network, attachment
        if self._way_out is None and not network.internal:
            try:
                self._open()
            except BaseException:
                self.leave(network.id)
                raise

    def leave(self, network_id: str) -> None:
        """Disconnect it from a network, and from the world if no other one leads there.

        RlError where that fails.
        """
        if network_id in self._networks:
            self._holder.ask("network", {"leave": network_id})
            del self._networks[network_id]
        if self._way_out is not None and not self._leads_out():
            self._way_out.close()
            self._way_out, self.ports = None, ()
            self._published(self.ports)

    def _open(self) -> None:
        """Begin to have a way out; RlError if it does not come to be, and all is as before."""
        from rootless.holder import errand

        way_out, ports = self._make_way_out(self._interface())
        ((announced,),) = errand.run(self._hear_routes, keep=self._namespaces)
        way_out.start(announced, *map(os.dup, self._namespaces))
        try:
            while not way_out.ready:
                if not wait(way_out.watched(), _PATIENCE_SECONDS):
                    raise RlError("the container's way out took too long")
                way_out.advance()
        except BaseException:
            way_out.close()
            raise
        self._way_out, self.ports = way_out, ports
        self._published(ports)

    def _hear_routes(self, channel: Channel) -> None:
        """Send what hears of the routes in the container's namespace, from a child of ours."""
        from rootless.kernel import syscalls
        from rootless.networks import routes

        userns, netns = self._namespaces
        syscalls.setns(userns, syscalls.CLONE_NEWUSER)
        syscalls.setns(netns, syscalls.CLONE_NEWNET)
        channel.send({}, routes.watch())

    def watched(self) -> dict[int, int]:
        """Return what to poll for: the end of the way out."""
        return self._way_out.watched() if self._way_out is not None else {}

    def advance(self) -> None:
        """Take note of what has happened; RlError if the way out has failed."""
        if self._way_out is not None:
            self._way_out.advance()
            if self._way_out.ready and self._namespaces and not self._joined:
                self._join_all()

    def end(self) -> None:
        """Have the way out end; ``close`` waits for it."""
        if self._way_out is not None:
            self._way_out.end()

    def close(self) -> None:
        """End the way out; the networks are given back with the holder."""
        if self._way_out is not None:
            self._way_out.close()
        for fd in self._namespaces:
            os.close(fd)
        self._namespaces = ()


def change(network: object, message: dict[str, Any]) -> dict[str, Any]:
    """Connect or disconnect a container that runs, as a command asks for; return the answer."""
    if not isinstance(network, Connected):
        return {
            "error": "the container runs without a user network: only one that was started with "
            "one can be connected while it runs (stop it first)"
        }
    try:
        if "network_join" in message:
            asked = message["network_join"]
            network.join(Network(**asked["network"]), Attachment(**asked["attachment"]))
        elif "network_leave" in message:
            network.leave(message["network_leave"])
    except RlError as error:
        return {"error": str(error)}
    return {"done": True}
