"""The cgroup that a container gets: where there is one to be had, or its limits ask for it.

Decides by the container's configuration and hands it to ``rootless.cgroups``.
Called by the supervisor at the first start, and by exec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from rootless.cgroups import place, resources, tree
from rootless.containers.announce import announce
from rootless.containers.limits import Limits, stored
from rootless.containers.limits import resources as resources_of
from rootless.containers.store import Container, ContainerStore
from rootless.errors import RlError
from rootless.values import as_dict

if TYPE_CHECKING:
    from rootless.cgroups.budget import Budget
    from rootless.cgroups.group import Group

# The kernel's: a millisecond of each 100, and its PID_MAX_LIMIT.
_LEAST: Final = 0.01
_MOST_CPUS: Final = 1_000_000
_MOST_PIDS: Final = 1 << 22


def limits_of(container: Container) -> Limits:
    """Return what the container may use: as it was made, or updated since."""
    known = container.state.limits or container.extra.request.get("limits")
    return stored(known) if known else Limits()


def make(container: Container, pids: list[int], placed: Callable[[str], None]) -> Group | None:
    """Return a cgroup with these processes of ours in it, None if there is none to be had.

    RlError if there is none, but limits. ``placed`` is told where it is going to be.
    """
    limits = limits_of(container)
    if limits.cgroups == "disabled":
        return None
    if container.state.cgroup:
        tree.sweep(container.state.cgroup)
    needed = resources.controllers(resources_of(limits))
    way = place.find()
    if way.kind == "none":
        if needed or limits.cgroup_parent:
            from rootless.cgroups.group import explain_missing

            raise RlError(explain_missing(needed, way))
        return None
    from rootless.cgroups import group

    try:
        return group.make(
            way,
            container.id,
            pids,
            parent=limits.cgroup_parent or None,
            needed=needed,
            budget=_budget() if not limits.cgroup_parent else None,
            announce=placed,
        )
    except RlError:
        if needed or limits.cgroup_parent:
            raise
        # Nobody asked for it: the container runs without, as where nothing is delegated.
        placed("")
        return None


def _budget() -> Budget:
    """Return what the configuration gives all containers of the user together: [budget]."""
    from rootless import config

    return budget_of(config.section("budget"))


def budget_of(given: Mapping[str, Any]) -> Budget:
    """Read [budget]; RlError for what no kernel could enforce."""
    from rootless.cgroups.budget import Budget
    from rootless.sizes import parse_size

    if unknown := given.keys() - {"memory", "cpus", "pids"}:
        raise RlError(f"the configuration's [budget] has no {min(unknown)}: memory, cpus, pids")

    def invalid(name: str, expected: str) -> RlError:
        said = repr(given[name])[:100]
        return RlError(f"the configuration's [budget]: invalid {name} {said} ({expected})")

    memory, cpus, pids = (given.get(name) for name in ("memory", "cpus", "pids"))
    if memory is not None:
        try:
            memory = parse_size(str(memory))
        except RlError:
            memory = 0
        if not memory:
            raise invalid("memory", 'a size such as "8G"')
    # Nothing is between a number that is none and another.
    if cpus is not None and not (type(cpus) in (int, float) and _LEAST <= cpus <= _MOST_CPUS):
        raise invalid("cpus", f"a number from {_LEAST} to {_MOST_CPUS}")
    if pids is not None and not (type(pids) is int and 1 <= pids <= _MOST_PIDS):
        raise invalid("pids", f"a number from 1 to {_MOST_PIDS}")
    return Budget(memory=memory, cpus=None if cpus is None else float(cpus), pids=pids)


def entrance(container: Container, joining: int) -> list[int]:
    """Let ``joining`` come near the container's cgroup; return a descriptor of its cgroup.procs.

    Who writes "0" into it is in the container's cgroup from then on, limits
    included. Nothing if the container has none.
    """
    path = container.state.cgroup
    if not path or not os.path.isdir(tree.leaf(path)):
        return []
    tree.admit(path, joining, place.bus(os.getuid()))
    return [os.open(f"{tree.leaf(path)}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)]


def to_apply(container: Container) -> dict[str, Any]:
    """Return the ``linux.resources`` that are in force for the next run."""
    return resources_of(limits_of(container))


def undelegated(limits: Limits) -> str:
    """Say what a start with these limits would be refused for now, "" if nothing."""
    needed = resources.controllers(resources_of(limits))
    if limits.cgroups == "disabled" or not (needed or limits.cgroup_parent):
        return ""
    from rootless.cgroups import delegation
    from rootless.cgroups.group import explain_missing

    way = place.find()
    try:
        missing = needed - delegation.controllers(way)
    except RlError as error:
        return str(error)
    return explain_missing(missing, way) if missing or way.kind == "none" else ""


def update(store: ContainerStore, container: Container, limits: Limits) -> str:
    """Let these limits be in force: now, if the container runs, and for later runs.

    Return what keeps it from being started with them, "" if nothing does.
    """
    path, running = container.state.cgroup, container.state.status == "running"
    if running:
        from rootless.cgroups import group

        if not path:
            raise RlError(
                f"cannot limit container {container.name}: it was started without cgroup"
                f"{_why_without(limits)}"
            )
        group.apply(path, resources_of(limits))
    store.update(container, limits=as_dict(limits))
    announce(container, "update")
    return "" if running else undelegated(limits)


def _why_without(limits: Limits) -> str:
    from rootless.cgroups.group import explain_missing

    if limits.cgroups == "disabled":
        return " (--cgroups=disabled)"
    way = place.find()
    if way.kind != "none":
        return " (start it again: now it can have one)"
    return f": {explain_missing(resources.controllers(resources_of(limits)), way)}"
