"""User networks as they are made and removed, under the lock of the containers that have them.

What a definition may be is networks.definition's, what containers have of it is ``connections``'.
Called by the command line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rootless import events
from rootless.containers import connections
from rootless.containers.state import now
from rootless.containers.store import Container, ContainerStore
from rootless.errors import RlError
from rootless.networks import definition as rules
from rootless.networks.definition import Definition
from rootless.networks.definitions import Definitions, taken_subnets


class Plan(NamedTuple):
    """What a person asks of a new network; a subnet that is not named is chosen."""

    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    ipv6: bool = False
    internal: bool = False
    dns: bool = True
    labels: Mapping[str, str] = {}
    options: Mapping[str, str] = {}


def create(root: Path, name: str, plan: Plan, *, ignore: bool = False) -> Definition:
    """Make a network and return it; with ``ignore`` the one that is there."""
    rules.check_name(name)
    definitions = Definitions(root)
    with ContainerStore(root).locked():
        if name in definitions.names():
            if ignore:
                return definitions.get(name)
            raise RlError(f"network with name {name} already exists")
        made = Definition(
            id=os.urandom(32).hex(),
            name=name,
            created=now(),
            pools=rules.make_pools(
                plan.subnets,
                plan.gateways,
                plan.ranges,
                ipv6=plan.ipv6,
                taken=taken_subnets(definitions),
                random=os.urandom(5),
            ),
            internal=plan.internal,
            dns=plan.dns,
            labels=plan.labels,
            options=plan.options,
        )
        rules.check_options(made.options, ipv6=made.ipv6)
        definitions.add(made)
    events.record(root, "network", "create", made.id, {"name": name, "type": "bridge"})
    return made


def users(root: Path, name: str) -> list[Container]:
    """Return the containers that have a network, running or not."""
    definitions = Definitions(root)
    exact = name if name in definitions.names() else definitions.get(name).name
    return connections.users(ContainerStore(root)).get(exact, [])


def remove(root: Path, name: str) -> None:
    """Remove a network; RlError if a container has it, running or not."""
    definitions = Definitions(root)
    if name in ("bridge", "host", "none"):
        raise RlError(f"{name} is a pre-defined network and cannot be removed")
    with ContainerStore(root).locked():
        exact = name if name in definitions.names() else definitions.get(name).name
        if having := connections.users(ContainerStore(root)).get(exact):
            by = ", ".join(sorted(container.name for container in having))
            raise RlError(
                f"network {exact} is in use by container {by} (remove that first, or use rl "
                "network rm --force, which does)"
            )
        actor = exact
        # One that is damaged has no ID.
        with contextlib.suppress(RlError):
            actor = definitions.get(exact).id
        definitions.remove(exact)
    events.record(root, "network", "destroy", actor, {"name": exact, "type": "bridge"})
