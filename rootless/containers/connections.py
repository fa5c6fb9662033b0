"""The user networks that containers have: asked for, connected and disconnected, with addresses.

Owns what stands in ``networks`` of state.json, and the container's hosts and resolv.conf where it
has any. An address is taken while the container that has it is active, and only then. Called by
create, by the supervisor at each start, and by the command line; ``live`` changes what runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rootless import events
from rootless.containers.connection import Connection
from rootless.containers.request import Request
from rootless.containers.store import Container, ContainerStore
from rootless.errors import NetworkNotFound, RlError
from rootless.networks import addresses, etc
from rootless.networks.definition import Definition
from rootless.networks.definitions import Definitions
from rootless.networks.mode import Mode, is_mode
from rootless.networks.request import NetworkRequest
from rootless.networks.user import Attachment, Network, mac_of
from rootless.networks.wish import Wish, check_all


def of(container: Container) -> list[Connection]:
    """Return the networks that a container has, running or not."""
    if container.state.networks is not None:
        return [Connection.read(dict(fields)) for fields in container.state.networks]
    return [Connection(Wish.read(dict(fields))) for fields in _asked(container)]


def _asked(container: Container) -> Sequence[dict[str, Any]]:
    asked: Sequence[dict[str, Any]] = container.extra.request.get("net", {}).get("networks", ())
    return asked


def users(containers: ContainerStore) -> dict[str, list[Container]]:
    """Return for each network, by its name, the containers that have it."""
    found: dict[str, list[Container]] = {}
    for container in containers.list():
        for connection in of(container):
            found.setdefault(connection.wish.name, []).append(container)
    return found


def resolved(root: Path, request: Request) -> Request:
    """Return a request whose networks are there and can give it what it wants; RlError if not."""
    definitions = Definitions(root)
    found = []
    for fields in request.net.networks:
        wish = Wish.read(dict(fields))
        definition = _definition(definitions, wish.name)
        addresses.check(definition, wish)
        found.append(wish._replace(name=definition.name))
    check_all(found)
    networks = tuple(wish._asdict() for wish in found)
    return request._replace(net=request.net._replace(networks=networks))


def internal_only(root: Path, request: Request) -> bool:
    """Tell whether none of the networks of a request has a way out."""
    definitions = Definitions(root)
    return all(_definition(definitions, one["name"]).internal for one in request.net.networks)


def check_there(root: Path, request: Request) -> None:
    """Raise RlError if a network has gone; the caller holds the lock of containers."""
    for fields in request.net.networks:
        _definition(Definitions(root), fields["name"])


def _definition(definitions: Definitions, name: str) -> Definition:
    try:
        return definitions.get(name)
    except NetworkNotFound as error:
        raise NetworkNotFound(
            f"{error} (rl network create {name} makes one; without one there are bridge, none, "
            "host, pasta and slirp4netns)"
        ) from None


def _no_mode(definitions: Definitions, name: str) -> Definition:
    try:
        return definitions.get(name)
    except NetworkNotFound:
        if not is_mode(name):
            raise
        raise NetworkNotFound(
            f"{name} is a network mode, which is chosen when a container is made (rl run "
            f"--network {name}): a container is connected to and disconnected from those of rl "
            "network create"
        ) from None


def networks_of(
    containers: ContainerStore, container: Container
) -> list[tuple[Network, Attachment]]:
    """Give a container that is about to start its addresses, and return them with its networks."""
    definitions = Definitions(containers.root)
    with containers.locked():
        container = containers.by_id(container.id)
        found: list[tuple[Definition, Connection]] = []
        for connection in of(container):
            definition = _definition(definitions, connection.wish.name)
            others = [other for _, other in found]
            found.append(
                (definition, _attached(containers, container, definition, connection, others))
            )
        if not found:
            return []
        made = [connection for _, connection in found]
        container = containers.change(container, networks=[one.record() for one in made])
    write_names(container, [definition for definition, _ in found], made)
    for definition, _ in found:
        _tell(containers.root, "connect", definition, container)
    return [(definition.network, _needed(connection)) for definition, connection in found]


def _needed(connection: Connection) -> Attachment:
    assert connection.attachment is not None
    return connection.attachment


def ended(containers: ContainerStore, container: Container) -> None:
    """Tell that a container does not use its networks any more."""
    definitions = {one.name: one for one in Definitions(containers.root).list()}
    for connection in of(container):
        if definition := definitions.get(connection.wish.name):
            _tell(containers.root, "disconnect", definition, container)


def _attached(
    containers: ContainerStore,
    container: Container,
    definition: Definition,
    connection: Connection,
    others: Sequence[Connection],
) -> Connection:
    """Return a connection with free addresses; the caller holds the lock until they are recorded.

    ``others`` are the container's own that have theirs already.
    """
    wish, before = connection.wish, connection.attachment
    taken: set[str] = set()
    wanted: set[str] = set()
    for other in containers.list():
        if other.id == container.id:
            continue
        for one in of(other):
            if one.wish.name == definition.name:
                wanted.update(filter(None, (one.wish.ip, one.wish.ip6)))
                if one.attachment is not None and other.active:
                    taken.update(text.partition("/")[0] for text in one.attachment.addresses)
    known = before.addresses if before and before.network == definition.id else ()
    chosen = addresses.choose(definition, wish, known, taken, wanted)
    net = container.extra.request["net"]
    names = [container.name, container.id[:12], container.config["hostname"], *wish.aliases]
    # As Docker: where a container is on two networks, who asks may say by which one.
    names += [f"{name}.{definition.name}" for name in names]
    attachment = Attachment(
        network=definition.id,
        addresses=chosen,
        mac=wish.mac or mac_of(chosen[0]),
        interface=wish.interface or _free_interface(container, others),
        names=tuple(dict.fromkeys(names)),
        dns=tuple(net.get("dns", ())),
    )
    return Connection(wish, attachment, os.urandom(32).hex())


def _free_interface(container: Container, others: Sequence[Connection]) -> str:
    """Return the name of the next interface: the way out has eth0 where it was there first."""
    taken = {one.attachment.interface for one in others if one.attachment}
    taken |= {one.wish.interface for one in of(container)}
    if not _asked(container):
        taken.add("eth0")
    number = 0
    while f"eth{number}" in taken:
        number += 1
    return f"eth{number}"


def write_names(
    container: Container, definitions: Sequence[Definition], connections: Sequence[Connection]
) -> None:
    """Write hosts and resolv.conf of a container that has user networks.

    In place: where the container runs, they are mounted into it.
    """
    net = container.extra.request["net"]
    wanted = NetworkRequest(
        dns=tuple(net["dns"]),
        dns_search=tuple(net["dns_search"]),
        dns_options=tuple(net["dns_options"]),
        add_hosts=tuple(net["add_hosts"]),
        ip=net["ip"],
    )
    mode = Mode.parse(container.extra.request["network"])
    if (definitions or _asked(container)) and all(one.internal for one in definitions):
        mode = Mode("none")
    own = [text.partition("/")[0] for one in connections for text in _needed(one).addresses]
    servers = [pool.gateway for one in definitions if one.dns for pool in one.pools]
    hosts = etc.hosts(mode, container.config["hostname"], wanted, own)
    # One is enough, which knows the names of all; by IPv6 it is the same one.
    _rewrite(container.path / "hosts", hosts)
    _rewrite(container.path / "resolv.conf", etc.resolv_conf(mode, wanted, servers=servers[:1]))


def _rewrite(path: Path, text: str) -> None:
    data = text.encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def connect(root: Path, container: Container, network: str, wish: Wish) -> None:
    """Connect a container to a network, at once if it runs."""
    containers, definitions = ContainerStore(root), Definitions(root)
    _check_mode(container)
    if _runs(container):
        from rootless.containers import live

        live.check(container)
    with containers.locked():
        container = containers.by_id(container.id)
        definition = _no_mode(definitions, network)
        wish = wish._replace(name=definition.name)
        before = of(container)
        if any(one.wish.name == definition.name for one in before):
            raise RlError(
                f"container {container.name} is already connected to network {definition.name}"
            )
        addresses.check(definition, wish)
        running = _runs(container)
        added = Connection(wish)
        if running:
            added = _attached(containers, container, definition, added, before)
        made = [*before, added]
        container = containers.change(container, networks=[one.record() for one in made])
    if running:
        from rootless.containers import live

        try:
            # Before: a way out that it gets with this forwards the queries that are sent there.
            _write_names_now(definitions, container, made)
            live.join(container, definition.network, _needed(added))
        except BaseException:
            _take_back(containers, container, definition.name)
            _write_names_now(definitions, container, before)
            raise
    _tell(root, "connect", definition, container)


def disconnect(root: Path, container: Container, network: str) -> None:
    """Disconnect a container from a network, at once if it runs."""
    containers, definitions = ContainerStore(root), Definitions(root)
    definition = _no_mode(definitions, network)
    rest = [one for one in of(container) if one.wish.name != definition.name]
    if len(rest) == len(of(container)):
        raise RlError(f"container {container.name} is not connected to network {definition.name}")
    if running := _runs(container):
        from rootless.containers import live

        live.leave(container, definition.id)
    container = _take_back(containers, container, definition.name)
    if running or not of(container):
        _write_names_now(definitions, container, of(container))
    _tell(root, "disconnect", definition, container)


def _runs(container: Container) -> bool:
    """Tell whether a container has what can be changed at once; between two runs it has not."""
    if container.active and container.state.status == "created":
        raise RlError(f"container {container.name} is just being started (try again)")
    return container.state.status == "running"


def _check_mode(container: Container) -> None:
    mode = Mode.parse(container.extra.request["network"])
    if not mode.helper and not _asked(container):
        raise RlError(
            f"container {container.name} has the network mode {mode.name}, which goes with no "
            "other network"
        )


def _take_back(containers: ContainerStore, container: Container, name: str) -> Container:
    with containers.locked():
        container = containers.by_id(container.id)
        rest = [one.record() for one in of(container) if one.wish.name != name]
        return containers.change(container, networks=rest)


def _write_names_now(
    definitions: Definitions, container: Container, connections: Sequence[Connection]
) -> None:
    there = [definitions.get(one.wish.name) for one in connections]
    write_names(container, there, connections)


def _tell(root: Path, action: str, definition: Definition, container: Container) -> None:
    about = {"container": container.id, "name": definition.name, "type": "bridge"}
    events.record(root, "network", action, definition.id, about)
