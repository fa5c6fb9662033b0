"""The network of a container as its supervisor needs it: from config.json to a helper.

Decides nothing that is not in config.json, but for the host's ports that were
left open. Called by the supervisor at each start.
"""

from __future__ import annotations

from collections.abc import Sequence

from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.networks.helper import Helper
from rootless.networks.mode import Mode, default_families
from rootless.networks.ports import Port
from rootless.networks.programs import RESOLVER, Wanted, listening


def prepare(container: Container) -> tuple[Helper, Sequence[Port]]:
    """Return what is going to connect a container, and the ports of the host that lead there.

    RlError where a program is missing or a port is not to be had.
    """
    extra = container.extra
    mode = Mode.parse(extra.request["network"])
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
    )
    return Helper(wanted, container.path), listening(wanted)
