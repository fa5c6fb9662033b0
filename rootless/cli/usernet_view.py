"""Networks as `rl network ls` and `rl network inspect` show them, in Docker's field names.

And what `rl inspect` shows of a container on them. Pure, but for the definitions that are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container as Names
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_interface
from typing import Any, Final, NamedTuple

from rootless.cli import filters, network_view
from rootless.cli.output import Row, label_method, label_text, label_title
from rootless.cli.template import Map
from rootless.cli.units import parse_time
from rootless.containers import connections
from rootless.containers.connection import Connection
from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.networks.definition import Definition
from rootless.networks.definitions import Definitions

TITLES: Final = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "CreatedAt": "CREATED AT",
    "Labels": "LABELS",
    "Label": label_title,
}
COLUMNS: Final = ("ID", "Name", "Driver", "Scope")
FILTERS: Final = (
    "dangling", "driver", "id", "label", "label!", "name", "scope", "type", "until",
)  # fmt: skip
# Docker's three, with their drivers; the first is the way out that each container has for itself.
BUILT_IN: Final = {"bridge": "bridge", "host": "host", "none": "null"}
_NEVER: Final = "0001-01-01T00:00:00Z"


class BuiltIn(NamedTuple):
    """One of the networks that are always there."""

    name: str

    @property
    def id(self) -> str:
        """Return an ID that is always the same."""
        return sha256(b"network " + self.name.encode()).hexdigest()


Network = Definition | BuiltIn


def shown(definitions: Sequence[Definition]) -> list[Network]:
    """Return all networks by name."""
    found: list[Network] = [*definitions, *map(BuiltIn, BUILT_IN)]
    return sorted(found, key=lambda network: network.name)


def find_built_in(name: str) -> BuiltIn | None:
    """Return the built-in network of this name or ID."""
    known = map(BuiltIn, BUILT_IN)
    return next((one for one in known if name in (one.name, one.id, one.id[:12])), None)


def _driver(network: Network) -> str:
    return BUILT_IN[network.name] if isinstance(network, BuiltIn) else "bridge"


def _labels(network: Network) -> Mapping[str, str]:
    return {} if isinstance(network, BuiltIn) else network.labels


def row(network: Network, *, truncate: bool) -> Row:
    """Return one network's row."""
    own = None if isinstance(network, BuiltIn) else network
    return {
        "ID": network.id[:12] if truncate else network.id,
        "Name": network.name,
        "Driver": _driver(network),
        "Scope": "local",
        "IPv6": str(own is not None and own.ipv6).lower(),
        "Internal": str(own is not None and own.internal).lower(),
        "CreatedAt": own.created if own else _NEVER,
        "Labels": label_text(_labels(network)),
        "Label": label_method(_labels(network)),
    }


def selected(network: Network, wanted: Mapping[str, list[str]], used: Names[str]) -> bool:
    """Tell whether the filters let a network through; ``used`` are those that containers have."""
    own = None if isinstance(network, BuiltIn) else network
    for value in wanted.get("type", ()):
        if value not in ("custom", "builtin"):
            raise filters.invalid("type", value, "it is custom or builtin")
    dangling = [filters.truth("dangling", text) for text in wanted.get("dangling", ())]
    names, ids = wanted.get("name"), wanted.get("id")
    return (
        (not dangling or (own is not None and own.name not in used) in dangling)
        and ("driver" not in wanted or _driver(network) in wanted["driver"])
        and ("scope" not in wanted or "local" in wanted["scope"])
        and ("type" not in wanted or ("custom" if own else "builtin") in wanted["type"])
        and (not names or bool(filters.any_pattern(names).search(network.name)))
        and (not ids or any(network.id.startswith(start) for start in ids))
        and ("until" not in wanted or (own is not None and older(own, wanted["until"])))
        and labels_match(network, wanted)
    )


def labels_match(network: Network, wanted: Mapping[str, list[str]]) -> bool:
    """Tell whether a network has the labels, and not those that it is not to have."""
    labels = _labels(network)
    return filters.labels_match(wanted.get("label", ()), labels) and not any(
        filters.labels_match([text], labels) for text in wanted.get("label!", ())
    )


def older(definition: Definition, limits: Sequence[str]) -> bool:
    """Tell whether a network was made before all of these times."""
    from rootless.cli.logs import parse_moment

    now, made = datetime.now(UTC), parse_time(definition.created)
    return all(made is not None and made < parse_moment(text, now) for text in limits)


def inspect(network: Network, containers: Sequence[Container]) -> dict[str, Any]:
    """Return everything about a network, shaped as `docker network inspect` prints it."""
    own = None if isinstance(network, BuiltIn) else network
    pools = own.pools if own else ()
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": own.created if own else _NEVER,
        "Scope": "local",
        "Driver": _driver(network),
        "EnableIPv4": any(pool.version == 4 for pool in pools),
        "EnableIPv6": own is not None and own.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": Map(),
            "Config": [
                {
                    "Subnet": pool.subnet,
                    **({"IPRange": pool.ip_range} if pool.ip_range else {}),
                    "Gateway": pool.gateway,
                }
                for pool in pools
            ],
        },
        "Internal": own is not None and own.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "DNS": own is not None and own.dns,
        "Containers": Map(
            {
                container.id: end
                for container in containers
                if container.active
                for end in _ends(network, container)
            }
        ),
        "Options": Map(own.options if own else {}),
        "Labels": Map(_labels(network)),
    }


def _ends(network: Network, container: Container) -> list[dict[str, str]]:
    if isinstance(network, BuiltIn):
        return _built_in_ends(network, container)
    return [
        {
            "Name": container.name,
            "EndpointID": one.endpoint,
            "MacAddress": one.attachment.mac,
            "IPv4Address": _first(one.attachment.addresses, 4),
            "IPv6Address": _first(one.attachment.addresses, 6),
        }
        for one in connections.of(container)
        if one.wish.name == network.name and one.attachment is not None
    ]


def _built_in_ends(network: BuiltIn, container: Container) -> list[dict[str, str]]:
    """Return a container's end of a network that is always there, which has it to itself."""
    found = network_view.settings(container)["Networks"].get(network.name)
    if found is None:
        return []
    ip = f"{found['IPAddress']}/{found['IPPrefixLen']}" if found["IPAddress"] else ""
    return [
        {
            "Name": container.name,
            "EndpointID": found["EndpointID"],
            "MacAddress": found["MacAddress"],
            "IPv4Address": ip,
            "IPv6Address": "",
        }
    ]


def _first(addresses: Sequence[str], version: int) -> str:
    return next((text for text in addresses if (":" in text) == (version == 6)), "")


def endpoints(container: Container) -> dict[str, Any]:
    """Return NetworkSettings.Networks of a container on user networks."""
    definitions = Definitions(container.path.parent.parent)
    found = {}
    for one in connections.of(container):
        definition = None
        with contextlib.suppress(RlError):
            definition = definitions.get(one.wish.name)
        found[one.wish.name] = _endpoint(container, one, definition)
    return found


def _endpoint(
    container: Container, one: Connection, definition: Definition | None
) -> dict[str, Any]:
    wish, active = one.wish, container.active
    attachment = one.attachment if active else None
    ends = [ip_interface(text) for text in attachment.addresses] if attachment else []
    by_version = {end.version: end for end in ends}
    pools = definition.pools if definition and active else ()
    gateways = {pool.version: pool.gateway for pool in pools}
    asked = {"IPv4Address": wish.ip, "IPv6Address": wish.ip6}
    aliases = [container.id[:12], *wish.aliases]
    return network_view.endpoint(
        IPAMConfig=Map({name: address for name, address in asked.items() if address}),
        Aliases=aliases,
        MacAddress=attachment.mac if attachment else wish.mac,
        NetworkID=definition.id if definition else "",
        EndpointID=one.endpoint if active else "",
        Gateway=gateways.get(4, ""),
        IPAddress=str(by_version[4].ip) if 4 in by_version else "",
        IPPrefixLen=by_version[4].network.prefixlen if 4 in by_version else 0,
        IPv6Gateway=gateways.get(6, ""),
        GlobalIPv6Address=str(by_version[6].ip) if 6 in by_version else "",
        GlobalIPv6PrefixLen=by_version[6].network.prefixlen if 6 in by_version else 0,
        DNSNames=list(attachment.names) if attachment else [container.name, *aliases],
    )
