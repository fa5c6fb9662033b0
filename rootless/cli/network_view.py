"""A container's network as `rl ps`, `rl port` and `rl inspect` show it, in Docker's field names.

Pure: from a store's Container to text and dictionaries; ``usernet_view`` has user networks.
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


def _on_networks(container: Container) -> bool:
    """Tell whether a container has, or was made with, user networks."""
    return bool(container.state.networks or _names_asked(container))


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
    if not _on_networks(container):
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


def settings(container: Container) -> dict[str, Any]:
    """Return NetworkSettings."""
    from rootless.networks.mode import Mode
    from rootless.networks.programs import GATEWAY, address

    extra = container.extra
    mode = Mode.parse(extra.request["network"])
    net = extra.request.get("net", {})
    networks: dict[str, Any] = {}
    if _on_networks(container):
        from rootless.cli.usernet_view import endpoints

        networks = endpoints(container)
    running = container.state.status == "running"
    ip = address(mode, net.get("ip")) if running and not networks else ""
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
