"""A container's network as `rl ps`, `rl port` and `rl inspect` show it, in Docker's field names.

Pure: from a store's Container to text and dictionaries; ``usernet_view`` has user networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rootless.cli.template import Map
from rootless.containers.store import Container
from rootless.networks.ports import ANY, Port, parse_expose

# What Docker shows of its default network beside Networks, too.
_REPEATED: Final = (
    "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress",
    "IPPrefixLen", "IPv6Gateway", "MacAddress",
)  # fmt: skip


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
    if _on_networks(container):
        return found
    return [_built_in(container) or container.extra.request["network"]]


def _built_in(container: Container) -> str:
    """Return which of the networks that are always there a container has, "" if it has another's.

    The default one is called as Docker calls it, whatever program connects the container.
    """
    # Not parsed by Mode, whose module is much for `rl ps` to load.
    mode = str(container.extra.request["network"]).partition(":")[0]
    return {"host": "host", "none": "none", "container": ""}.get(mode, "bridge")


def has_network(container: Container, wanted: Sequence[str]) -> bool:
    """Tell whether a container has one of these networks, by name or ID; bridge is the default.

    Which goes by the name of its program as well.
    """
    found = set(names(container))
    if _on_networks(container):
        found.update(_ids(container, wanted))
    else:
        found.add(container.extra.request["network"])
    return not found.isdisjoint(wanted)


def has_port(container: Container, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether a container publishes or exposes one of these ports of it, if any are wanted."""
    if "publish" not in wanted and "expose" not in wanted:
        return True
    extra = container.extra
    published = {str(Port(**fields)) for fields in extra.ports}
    return any(
        str(port) in there
        for key, there in (("publish", published), ("expose", set(extra.exposed)))
        for text in wanted.get(key, ())
        for port in parse_expose(text)
    )


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
    extra = container.extra
    networks: dict[str, Any] = {}
    if _on_networks(container):
        from rootless.cli.usernet_view import endpoints

        networks = endpoints(container)
    # The networks of another container are shown there.
    if not _on_networks(container) and (name := _built_in(container)):
        networks = {name: _built_in_endpoint(container, name)}
    running = container.state.status == "running"
    ports: dict[str, Any] = dict.fromkeys(extra.exposed) if running else {}
    for port in published(container):
        found = ports.get(str(port)) or []
        ports[str(port)] = [*found, {"HostIp": port.ip or ANY, "HostPort": str(port.host)}]
    init = container.state.init if running else None
    # As Docker: what it repeats here is that of its default network.
    default = networks["bridge"] if "bridge" in networks else endpoint()
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": f"/proc/{init.pid}/ns/net" if init else "",
        "Ports": Map(ports),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{name: default[name] for name in _REPEATED},
        "Networks": Map(networks),
    }


def _built_in_endpoint(container: Container, network: str) -> dict[str, Any]:
    """Return an entry of NetworkSettings.Networks of a container without user networks."""
    from rootless.cli.usernet_view import BuiltIn
    from rootless.networks.mode import Mode
    from rootless.networks.programs import address, gateway_of

    request = container.extra.request
    net = request.get("net", {})
    running = container.state.status == "running"
    ip = address(Mode.parse(request["network"]), net.get("ip")) if running else ""
    return endpoint(
        IPAMConfig=Map({"IPv4Address": net["ip"]}) if net.get("ip") else None,
        MacAddress=net.get("mac_address") or "",
        NetworkID=BuiltIn(network).id,
        Gateway=gateway_of(ip) if ip else "",
        IPAddress=ip,
        IPPrefixLen=24 if ip else 0,
    )


def endpoint(**known: Any) -> dict[str, Any]:
    """Return Docker's EndpointSettings, with what is known."""
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": "",
        "DriverOpts": None,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
        **known,
    }


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
