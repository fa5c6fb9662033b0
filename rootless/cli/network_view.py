"""A container's network as `rl ps`, `rl port` and `rl inspect` show it, in Docker's field names.

Pure: from a store's Container to text and dictionaries.
"""

from __future__ import annotations

from typing import Any

from rootless.cli.template import Map
from rootless.containers.store import Container
from rootless.networks.mode import Mode
from rootless.networks.ports import ANY, Port
from rootless.networks.programs import GATEWAY, address


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


def settings(container: Container) -> dict[str, Any]:
    """Return NetworkSettings."""
    extra = container.extra
    mode = Mode.parse(extra.request["network"])
    net = extra.request.get("net", {})
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
    return {"Ports": Map(ports), **ends, "Networks": Map({str(mode): ends})}


def host_config(container: Container) -> dict[str, Any]:
    """Return those fields of HostConfig that say what network was asked for."""
    extra = container.extra
    net = extra.request.get("net", {})
    bindings: dict[str, list[dict[str, str]]] = {}
    for fields in extra.ports:
        port = Port(**fields)
        host = "" if not port.host else f"{port.host}-{port.last}" if port.last else str(port.host)
        bindings.setdefault(str(port), []).append({"HostIp": port.ip, "HostPort": host})
    return {
        "NetworkMode": extra.request["network"],
        "PortBindings": Map(bindings),
        "PublishAllPorts": net.get("publish_all", False),
        "Dns": list(net.get("dns", ())),
        "DnsOptions": list(net.get("dns_options", ())),
        "DnsSearch": list(net.get("dns_search", ())),
        "ExtraHosts": list(net.get("add_hosts", ())),
    }
