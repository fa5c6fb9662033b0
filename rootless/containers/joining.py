"""Which container a new one joins: --network, --pid, --ipc, --uts and --userns container:NAME.

Owns the rules. A process is in one user namespace, and what it may do in another namespace comes
from there: so a container that joins another is in that one's user namespace, as all containers of
Podman's are in one. Called by create; what is joined at a start is ``joined``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rootless.containers import idmaps
from rootless.containers.annotation import JOIN, joined, named_in
from rootless.containers.request import Request
from rootless.containers.store import Container, ContainerStore
from rootless.errors import ContainerNotFound, RlError
from rootless.kernel.userns import Maps
from rootless.networks.mode import Mode

# As messages call them.
NAMES = {
    "network": "network",
    "pid": "PID namespace",
    "ipc": "IPC namespace",
    "uts": "UTS namespace",
    "user": "user namespace",
}


class Others(NamedTuple):
    """What a container has of those that it joins."""

    maps: Maps
    hostname: str | None
    """That of the network or the UTS namespace."""
    connected: bool
    """Whether a program of ours connects its network."""
    programs: frozenset[str]
    """Which programs share its user namespace."""


def resolve(containers: ContainerStore, request: Request) -> tuple[Request, Others]:
    """Return a request with IDs in place of names, and what it comes to; RlError if it cannot be.

    All that is decided here stays true: no container's configuration ever changes.
    """
    spaces = request.namespaces
    found = joined(request.network, {kind: getattr(spaces, kind) for kind in _OPTIONS})
    targets = {kind: containers.get(name) for kind, name in found.items()}
    _check(containers, request, targets)
    modes: dict[str, Any] = {
        option: f"{JOIN}{targets[kind].id}" for option, kind in _OPTIONS.items() if kind in targets
    }
    if spaces.userns == "host":
        modes["userns"] = ""
    changed = request._replace(namespaces=spaces._replace(**modes))
    first = next(iter(targets.values()))
    network = targets.get("network")
    if network is not None:
        changed = changed._replace(network=f"{JOIN}{network.id}")
    named = network or targets.get("uts")
    mode = Mode.parse(request.network)
    return changed, Others(
        maps=idmaps.maps_of(first.config),
        hostname=named.config["hostname"] if named else None,
        connected=mode.helper if network is None else _connected(containers, network),
        programs=frozenset({mode.name, _mode_of(_owner(containers, first), containers)}),
    )


# Options of namespaces, and the types of what they are about.
_OPTIONS: Mapping[str, str] = {"userns": "user", "pid": "pid", "ipc": "ipc", "uts": "uts"}


def _check(containers: ContainerStore, request: Request, targets: Mapping[str, Container]) -> None:
    first, *others = targets.values()
    for other in others:
        if _owner(containers, other) != _owner(containers, first):
            raise RlError(
                f"cannot join both {first.name} and {other.name}: each has a user namespace of "
                f"its own (make {other.name} join {first.name}, too)"
            )
    userns = request.namespaces.userns
    if userns not in ("", "host") and not named_in(userns):
        raise RlError(
            f"--userns {userns} cannot be used here: a container that joins {first.name} is in "
            "its user namespace"
        )
    if request.namespaces.pid == "host":
        raise RlError(f"--pid host cannot be used by a container that joins {first.name}")
    if Mode.parse(request.network).name == "slirp4netns":
        raise RlError(
            f"--network slirp4netns cannot be used by a container that joins {first.name}, which "
            f"could take slirp4netns over (use pasta, --network none or container:{first.name})"
        )
    if request.net.networks:
        raise RlError(
            f"a container that joins {first.name} is in its user namespace, and can be in no "
            f"network of rl network create (let {first.name} be in it, and join its network)"
        )
    for kind, target in targets.items():
        if "pid" in target.shared:
            raise RlError(f"cannot join {target.name}: it has the host's PID namespace")
        if kind in target.shared and kind != "ipc":
            option = "network" if kind == "network" else kind
            raise RlError(
                f"cannot join {target.name}: it has the host's {NAMES[kind]} (use --{option} host)"
            )
        if kind == "ipc" and target.extra.request["namespaces"]["ipc"] != "shareable":
            # Docker's own words, but for the hint.
            raise RlError(
                f"container {target.name}: non-shareable IPC (hint: make it with --ipc shareable)"
            )


def _owner(containers: ContainerStore, container: Container) -> str:
    """Return the ID of the container whose user namespace this one is in."""
    container_id = container.id
    while others := list(container.extra.joined.values()):
        container_id = others[0]
        try:
            container = containers.by_id(container_id)
        except ContainerNotFound:
            break
    return container_id


def _connected(containers: ContainerStore, container: Container) -> bool:
    """Tell whether a program of ours connects the network that a container has."""
    try:
        while other := container.extra.joined.get("network"):
            container = containers.by_id(other)
    except ContainerNotFound:
        # Nobody knows any more.
        return True
    return Mode.parse(container.extra.request["network"]).helper


def _mode_of(container_id: str, containers: ContainerStore) -> str:
    try:
        return Mode.parse(containers.by_id(container_id).extra.request["network"]).name
    except ContainerNotFound:
        return "slirp4netns"
