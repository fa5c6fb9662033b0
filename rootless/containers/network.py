"""The network of a container as its supervisor needs it: from config.json to what connects it.

Decides nothing that is not in config.json, but for the host's ports that were
left open. Called by the supervisor at each start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rootless.containers.store import Container, ContainerStore
from rootless.errors import RlError
from rootless.networks.helper import Helper
from rootless.networks.mode import Mode, default_families
from rootless.networks.ports import Port
from rootless.networks.programs import INTERFACE, RESOLVER, Wanted, listening

if TYPE_CHECKING:
    from rootless.containers.connected import Connected
    from rootless.holder.client import Holder
    from rootless.networks.user import Attachment, Network


def user_networks(
    containers: ContainerStore, container: Container
) -> Sequence[tuple[Network, Attachment]]:
    """Return the user networks of a container that is about to start, with its place on each."""
    if not container.state.networks and not container.extra.request.get("net", {}).get("networks"):
        return ()
    from rootless.containers import connections

    return connections.networks_of(containers, container)


def prepare(
    container: Container,
    networks: Sequence[tuple[Network, Attachment]],
    holder: Holder | None,
    published: Callable[[Sequence[Port]], None],
) -> tuple[Helper | Connected, Sequence[Port]]:
    """Return what is going to connect a container, and the ports of the host that lead there.

    The ``holder`` connects it to user networks; ``published`` hears of the ports that it has after
    a change of these. RlError where a program is missing or a port is not to be had.
    """
    mode = Mode.parse(container.extra.request["network"])
    asked = container.extra.request.get("net", {}).get("networks")
    if holder is None or not networks:
        # One that has been disconnected from all that it was made with has no other way out.
        return _helper(container, Mode("none") if asked else mode)
    from rootless.containers.connected import Connected

    connected = Connected(
        container.id,
        holder,
        networks,
        lambda interface: _helper(container, mode, interface),
        published,
        optional=bool(asked),
    )
    return connected, connected.ports


def _helper(
    container: Container, mode: Mode, interface: str = INTERFACE
) -> tuple[Helper, Sequence[Port]]:
    extra = container.extra
    ports: Sequence[Port] = [Port(**port) for port in extra.ports] if mode.helper else []
    if ports:
        from rootless.networks.reserve import reserve

        if mode.name == "slirp4netns" and any(":" in port.ip for port in ports):
            raise RlError(
                "slirp4netns forwards ports of IPv4 addresses only "
                "(--network pasta forwards those of IPv6, too)"
            )
        ports = reserve(ports)
    net = extra.request.get("net", {})
    wanted = Wanted(
        mode=mode,
        ports=ports,
        families=default_families() if mode.name == "pasta" else (),
        forwards_dns=RESOLVER in (container.path / "resolv.conf").read_text(errors="replace"),
        ip=net.get("ip"),
        mac_address=net.get("mac_address"),
        interface=interface,
    )
    return Helper(wanted, container.path), listening(wanted)
