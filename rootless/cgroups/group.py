"""Making the cgroup of one container, setting its limits, leaving it.

Called by the supervisor, which moves itself and the overlay server into it
before it starts PID 1, and leaves it as the last.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rootless.cgroups import resources as limits
from rootless.cgroups import tree
from rootless.cgroups.place import CONTROLLERS, Way, mount_point, own_cgroup
from rootless.errors import RlError
from rootless.files import read_text

# Below a cgroup that was delegated to us: all our containers, and what was there before.
_ALL: Final = "rl"
_OTHERS: Final = "rl-others"

# A server's caches grow with the directories that a container makes, but not for ever.
_SERVERS_MEMORY: Final = 1 << 30
# It is one thread that works, most of the time.
_SERVERS_CPU: Final = "100000 100000"


class Budget(NamedTuple):
    """What all containers of the user may have together; None is no limit."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def resources(self) -> limits.Resources:
        """Return it as config.json would have it."""
        found: dict[str, dict[str, int]] = {}
        if self.memory is not None:
            found["memory"] = {"limit": self.memory}
        if self.cpus is not None:
            found["cpu"] = {"quota": int(self.cpus * 100000), "period": 100000}
        if self.pids is not None:
            found["pids"] = {"limit": self.pids}
        return found


class Group:
    """A container's cgroup while its supervisor lives."""

    def __init__(self, path: str, origin: str) -> None:
        self.path = path
        self._origin = origin
        self._events = -1
        self._killed = 0

    def prepare(self) -> int:
        """Make the place for a run's processes; return its descriptor, for clone3."""
        leaf = tree.leaf(self.path)
        os.makedirs(leaf, exist_ok=True)
        self._killed = 0
        with contextlib.suppress(FileNotFoundError):  # no controller, no such file
            self._events = os.open(f"{leaf}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        return os.open(leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def watched(self) -> dict[int, int]:
        """Return what to poll for, to learn that the kernel ran out of the container's memory."""
        return {self._events: select.POLLPRI} if self._events >= 0 else {}

    def ran_out(self) -> bool:
        """Tell whether the kernel has killed for want of memory since it was asked last."""
        if self._events < 0:
            return False
        text = os.pread(self._events, 4096, 0).decode()
        before, self._killed = self._killed, tree.parse_counters(text).get("oom_kill", 0)
        return self._killed > before

    def apply(self, resources: limits.Resources) -> None:
        """Set the limits; RlError where a controller is missing or the kernel refuses."""
        apply(self.path, resources)

    def end_run(self) -> bool:
        """Kill what is left of a run and forget it; tell whether any was killed for memory."""
        if self._events >= 0:
            self.ran_out()
            os.close(self._events)
            self._events = -1
        tree.kill(self.path)
        tree.remove(tree.leaf(self.path))
        return self._killed > 0

    def leave(self) -> None:
        """Remove it. systemd does that with its own, when we have ended."""
        if tree.is_scope(self.path):
            return
        parent = os.path.dirname(os.path.dirname(self.path))
        for place in (self._origin, f"{parent}/{_OTHERS}", parent):
            with contextlib.suppress(OSError):
                tree.write(f"{place}/cgroup.procs", "0")
                break
        tree.sweep(self.path)


def apply(path: str, resources: limits.Resources) -> None:
    """Write limits into a container's cgroup, which exists."""
    missing = limits.controllers(resources) - available(tree.leaf(path))
    if missing:
        raise RlError(explain_missing(missing))
    for setting in limits.settings(resources):
        target = path if setting.shared else tree.leaf(path)
        _write(f"{target}/{setting.file}", setting.value)
        if setting.file == "cpu.max":
            _write(f"{path}/{tree.SERVERS}/cpu.max", _SERVERS_CPU)


def _write(file: str, value: str) -> None:
    try:
        tree.write(file, value)
    except FileNotFoundError:
        name = os.path.basename(file)
        # A kernel without swap has no limit for it, and needs none; the rest it has to have.
        if not name.startswith("memory.swap."):
            raise RlError(f"this kernel has no {name}, which the limit needs") from None
    except OSError as error:
        raise RlError(
            f"the kernel refuses {value!r} for {os.path.basename(file)}: {error.strerror}"
        ) from None


def available(path: str) -> set[str]:
    """Return the controllers that a cgroup has."""
    return set(read_text(f"{path}/cgroup.controllers").split())


def explain_missing(missing: set[str], way: Way | None = None) -> str:
    """Say which controllers a limit would need, and what the administrator can do.

    None are ``missing`` where it is a parent that was asked for, and there is no ``way`` to it.
    """
    if not missing and way is not None:
        return (
            f"--cgroup-parent needs a cgroup that is delegated to you: {way.reason} (ask the "
            f"administrator for: {way.cure})"
        )
    names = " ".join(sorted(missing))
    cures = [f"Delegate={names} in /etc/systemd/system/user@.service.d/delegate.conf"]
    why = ""
    if way is not None and way.kind == "none":
        why, cures = f": {way.reason}", [way.cure, *cures]
    return (
        f"limits need the cgroup controllers {names}, which are not delegated to you{why} (ask "
        f"the administrator for: {'; '.join(cures)}; --cgroups=disabled does without limits)"
    )


def make(
    way: Way,
    container_id: str,
    pids: Sequence[int],
    *,
    parent: str | None,
    needed: set[str],
    budget: Budget,
    announce: Callable[[str], None],
) -> Group:
    """Make a cgroup and move the processes into it; RlError where that fails.

    ``parent`` is what --cgroup-parent says. ``announce`` is told the path before
    there is anything that a crash could leave behind.
    """
    origin = f"{mount_point()}{own_cgroup('self')}".rstrip("/")
    try:
        if way.kind == "systemd":
            group = Group(_scope(way.bus, container_id, pids, parent, budget), origin)
            announce(group.path)
        else:
            top = _inside(way.parent, parent) if parent else f"{way.parent}/{_ALL}"
            group = Group(f"{top}/{container_id}", origin)
            announce(group.path)
            _chain(way.parent, group.path, needed)
            if not parent:
                _limit(top, budget)
        _settle(group.path, pids)
    except OSError as error:
        raise RlError(f"cannot make a cgroup: {error.strerror} ({error.filename})") from None
    return group


def _scope(
    bus: str, container_id: str, pids: Sequence[int], parent: str | None, budget: Budget
) -> str:
    from rootless.cgroups import systemd

    if parent is not None and not (parent.endswith(".slice") and "/" not in parent):
        raise RlError(
            f"invalid cgroup parent {parent!r}: systemd --user wants a slice, such as rl-jobs.slice"
        )
    # systemd may not have noticed yet that the scope of the last run is empty.
    name = f"rl-{container_id[:12]}-{os.getpid()}.scope"
    with systemd.connected(bus) as manager:
        description = f"container {container_id[:12]}"
        service = own_service(own_cgroup("self"), os.getuid())
        manager.start_scope(name, description, pids, parent or systemd.SLICE, service)
        properties: list[tuple[str, tuple[str, int]]] = []
        if budget.memory is not None:
            properties.append(("MemoryMax", ("t", budget.memory)))
        if budget.cpus is not None:
            properties.append(("CPUQuotaPerSecUSec", ("t", int(budget.cpus * 1000000))))
        if budget.pids is not None:
            properties.append(("TasksMax", ("t", budget.pids)))
        if properties and parent is None:
            manager.limit(systemd.SLICE, properties)
    return f"{mount_point()}{own_cgroup('self')}"


def own_service(cgroup: str, uid: int) -> str | None:
    """Return the service of the user's systemd that a process in this cgroup belongs to."""
    _, given, rest = cgroup.partition(f"/user@{uid}.service/")
    names = rest.split("/") if given else []
    return next((name for name in names if name.endswith(".service")), None)


def _inside(top: str, parent: str) -> str:
    """Return where --cgroup-parent is, below what was delegated to us."""
    mount = mount_point() or ""
    path = os.path.normpath(f"{mount}/{parent}" if parent.startswith("/") else f"{top}/{parent}")
    if path != top and not path.startswith(f"{top}/"):
        raise RlError(f"the cgroup parent {parent} is not below {top.removeprefix(mount) or '/'}")
    return path


def _chain(top: str, path: str, needed: set[str]) -> None:
    """Make the cgroups from ``top`` down to ``path``, each of which shares all it has out."""
    if needed - shared(top) and _occupied(top):
        _evacuate(top)
    _share(top)
    names = os.path.relpath(path, top).split("/")
    for count in range(1, len(names) + 1):
        directory = "/".join([top, *names[:count]])
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        if count < len(names):
            _share(directory)


def _share(directory: str) -> None:
    """Enable all controllers for what is below."""
    if _occupied(directory):
        # The kernel would refuse some of them, and with the others make it a group of threads.
        return
    for name in sorted(available(directory) & set(CONTROLLERS) - shared(directory)):
        with contextlib.suppress(OSError):  # what is missing is missed where it is needed
            tree.write(f"{directory}/cgroup.subtree_control", f"+{name}")


def shared(directory: str) -> set[str]:
    """Return the controllers that are enabled for what is below."""
    return set(read_text(f"{directory}/cgroup.subtree_control").split())


def _occupied(directory: str) -> bool:
    return bool(read_text(f"{directory}/cgroup.procs"))


def _evacuate(directory: str) -> None:
    """Move the processes of a cgroup into one below it, so that it can share controllers out.

    They are our own, or the one who delegated it to us would have kept it.
    """
    others = f"{directory}/{_OTHERS}"
    os.makedirs(others, exist_ok=True)
    for _ in range(100):
        pids = read_text(f"{directory}/cgroup.procs").split()
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                tree.write(f"{others}/cgroup.procs", pid)


def _settle(path: str, pids: Sequence[int]) -> None:
    """Move our own processes where they do not count as the container's."""
    servers = f"{path}/{tree.SERVERS}"
    os.makedirs(servers, exist_ok=True)
    for pid in pids:
        tree.write(f"{servers}/cgroup.procs", str(pid))
    _share(path)
    with contextlib.suppress(OSError):
        tree.write(f"{servers}/memory.max", str(_SERVERS_MEMORY))


def _limit(path: str, budget: Budget) -> None:
    missing = limits.controllers(budget.resources()) - available(path)
    if missing:
        raise RlError(f"the budget of the configuration cannot be kept: {explain_missing(missing)}")
    for setting in limits.settings(budget.resources()):
        _write(f"{path}/{setting.file}", setting.value)
