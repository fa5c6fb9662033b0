"""A container's network as `rl ps`, `rl port` and `rl inspect` show it, in Docker's field names.

From a store's Container to text and dictionaries; of user networks the definitions are looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rootless.cli.template import Map
from rootless.containers.store import Container
from rootless.networks.ports import ANY, Port


def published(container: Container) -> tuple[Port, ...]:
    """Return the ports that lead to a container now."""
    return container.state.ports if container.state.status == "running" else ()


def column(container: Container) -> str:
    """Return the PORTS of a container: runs of ports as one, then what is only exposed."""
    if container.state.status != "running":
        return ""
    runs: list[tuple[Port, Port]] = []
    for port in sorted(published(container), key=lambda p: (p.protocol, p.ip, p.container, p.host)):
        if runs and _follows(runs[-1][1], port):
            runs[-1] = runs[-1][0], port
        else:
            runs.append((port, port))
    shown = [
        f"{first.where}{_to(first.host, last.host)}->{first.container}"
        f"{_to(first.container, last.container)}/{first.protocol}"
        for first, last in runs
    ]
    taken = {str(port) for port in published(container)}
    return ", ".join([*shown, *(name for name in container.extra.exposed if name not in taken)])


def _follows(before: Port, port: Port) -> bool:
    return (before.protocol, before.ip, before.container + 1, before.host + 1) == (
        port.protocol,
        port.ip,
        port.container,
        port.host,
    )


def _to(first: int, last: int) -> str:
    return f"-{last}" if last != first else ""


def _names_asked(container: Container) -> list[str]:
    """Return the names of the user networks that a container was made with."""
    return [str(one["name"]) for one in container.extra.request.get("net", {}).get("networks", ())]


def names(container: Container) -> list[str]:
    """Return the networks of a container by name: user networks, else its mode."""
    if container.state.networks is not None:
        found = [str(one["wish"]["name"]) for one in container.state.networks]
    else:
        found = _names_asked(container)
    return found or [container.extra.request["network"]]


def has_network(container: Container, wanted: Sequence[str]) -> bool:
    """Tell whether a container has one of these networks, by name or ID; bridge is the default."""
    from rootless.networks.mode import Mode

    found = set(names(container))
    if not container.state.networks and not _names_asked(container):
        if Mode.parse(container.extra.request["network"]).helper:
            found.add("bridge")
    else:
        found.update(_ids(container, wanted))
    return not found.isdisjoint(wanted)


def _ids(container: Container, wanted: Sequence[str]) -> list[str]:
    """Return those of ``wanted`` that are the ID of a user network, or its beginning."""
    ids = [
        str(one["attachment"]["network"])
        for one in container.state.networks or ()
        if one["attachment"]
    ]
    return [text for text in wanted if text and any(known.startswith(text) for known in ids)]


def _networks(container: Container) -> dict[str, Any]:
    """Return NetworkSettings.Networks of a container on user networks."""
    if not container.state.networks and not _names_asked(container):
        return {}
    from ipaddress import ip_interface

    from rootless.containers import connections
    from rootless.errors import RlError
    from rootless.networks.definitions import Definitions

    definitions = Definitions(container.path.parent.parent)
    active = container.active
    shown = {}
    for one in connections.of(container):
        wish, attachment = one.wish, one.attachment
        try:
            definition = definitions.get(wish.name)
            network_id, pools = definition.id, definition.pools
        except RlError:
            network_id, pools = "", ()
        ends = [ip_interface(text) for text in attachment.addresses] if attachment else []
        by_version = {end.version: end for end in ends} if active else {}
        gateways = {pool.version: pool.gateway for pool in pools} if active else {}
        own = [container.id[:12], *wish.aliases]
        asked = {"IPv4Address": wish.ip} if wish.ip else {}
        asked |= {"IPv6Address": wish.ip6} if wish.ip6 else {}
        shown[wish.name] = {
            "IPAMConfig": Map(asked),
            "Links": None,
            "Aliases": own,
            "MacAddress": attachment.mac if attachment and active else wish.mac,
            "DriverOpts": None,
            "NetworkID": network_id,
            "EndpointID": one.endpoint if active else "",
            "Gateway": gateways.get(4, ""),
            "IPAddress": str(by_version[4].ip) if 4 in by_version else "",
            "IPPrefixLen": by_version[4].network.prefixlen if 4 in by_version else 0,
            "IPv6Gateway": gateways.get(6, ""),
            "GlobalIPv6Address": str(by_version[6].ip) if 6 in by_version else "",
            "GlobalIPv6PrefixLen": by_version[6].network.prefixlen if 6 in by_version else 0,
            "DNSNames": list(attachment.names) if attachment else [container.name, *own],
        }
    return shown


def settings(container: Container) -> dict[str, Any]:
    """Return NetworkSettings."""
    from rootless.networks.mode import Mode
    from rootless.networks.programs import GATEWAY, address

    extra = container.extra
    mode = Mode.parse(extra.request["network"])
    net = extra.request.get("net", {})
    networks = _networks(container)
    running = container.state.status == "running"
    ip = address(mode, net.get("ip")) if running else ""
    ends = {
        "IPAddress": ip,
        "IPPrefixLen": 24 if ip else 0,
        "Gateway": GATEWAY if ip else "",
        "MacAddress": net.get("mac_address") or "",
    }
    ports: dict[str, Any] = dict.fromkeys(extra.exposed) if running else {}
    for port in published(container):
        found = ports.get(str(port)) or []
        ports[str(port)] = [*found, {"HostIp": port.ip or ANY, "HostPort": str(port.host)}]
    # The networks of another container are shown there.
    if not networks and mode.name != "container":
        networks = {str(mode): ends}
    return {"Ports": Map(ports), **ends, "Networks": Map(networks)}


def host_config(container: Container) -> dict[str, Any]:
    """Return those fields of HostConfig that say what network was asked for."""
    extra = container.extra
    net = extra.request.get("net", {})
    way_out = extra.request["network"]
    bindings: dict[str, list[dict[str, str]]] = {}
    for fields in extra.ports:
        port = Port(**fields)
        host = "" if not port.host else f"{port.host}-{port.last}" if port.last else str(port.host)
        bindings.setdefault(str(port), []).append({"HostIp": port.ip, "HostPort": host})
    return {
        "NetworkMode": _names_asked(container)[0] if _names_asked(container) else way_out,
        "PortBindings": Map(bindings),
        "PublishAllPorts": net.get("publish_all", False),
        "Dns": list(net.get("dns", ())),
        "DnsOptions": list(net.get("dns_options", ())),
        "DnsSearch": list(net.get("dns_search", ())),
        "ExtraHosts": list(net.get("add_hosts", ())),
    }
