"""Making the cgroup of one container, setting its limits, leaving it.

Called by the supervisor, which moves itself and the overlay server into it
before it starts PID 1, and leaves it as the last.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Sequence
from typing import Final

from rootless.cgroups import resources as limits
from rootless.cgroups import tree
from rootless.cgroups.budget import Budget, keep, keep_in_slice
from rootless.cgroups.place import CONTROLLERS, Way, bus, mount_point, own_cgroup
from rootless.errors import RlError
from rootless.files import read_text

# Below a cgroup that was delegated to us, beside our containers: what was there before.
_OTHERS: Final = "rl-others"

# A server's caches grow with the directories that a container makes, but not for ever. And it is
# one thread that works, most of the time.
_SERVERS_LIMITS: Final = {"memory.max": str(1 << 30), "cpu.max": "100000 100000"}
_SERVERS_NEED: Final = frozenset(file.partition(".")[0] for file in _SERVERS_LIMITS)

# Other containers come and go at the same time.
_ATTEMPTS: Final = 20


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
            _drop_reservation(self.path)
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
    shared = {one.file: one.value for one in limits.settings(resources) if one.shared}
    socket = bus(os.getuid())
    if shared and socket is not None and tree.is_scope(path):
        from rootless.cgroups import systemd

        with systemd.connected(socket) as manager:
            manager.keep(os.path.basename(path), shared)
    if "memory.low" in shared:
        from rootless.cgroups import reservation

        reservation.pass_up(path, socket)


def _write(file: str, value: str) -> None:
    name = os.path.basename(file)
    try:
        tree.write(file, value)
    except FileNotFoundError:
        # A kernel without swap has no limit for it, and needs none. Of the two weights of a
        # device one is enough. The rest it has to have.
        if name.startswith(("memory.swap.", "io.bfq.")) or (
            name == "io.weight" and os.path.exists(f"{os.path.dirname(file)}/io.bfq.weight")
        ):
            return
        raise RlError(f"this kernel has no {name}, which the limit needs") from None
    except OSError as error:
        raise RlError(f"the kernel refuses {value!r} for {name}: {error.strerror}") from None


def _drop_reservation(scope: str) -> None:
    from rootless.cgroups import reservation

    # The container has ended; what is left too high protects nobody.
    if reservation.reserves(scope):
        with contextlib.suppress(OSError, RlError):
            reservation.drop(scope)
            reservation.pass_up(scope, bus(os.getuid()))


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
    budget: Budget | None,
    announce: Callable[[str], None],
) -> Group:
    """Make a cgroup and move the processes into it; RlError where that fails.

    ``parent`` is what --cgroup-parent says; there is no ``budget`` then. ``announce`` is told the
    path before there is anything that a crash could leave behind.
    """
    origin = f"{mount_point()}{own_cgroup('self')}".rstrip("/")
    try:
        if way.kind == "systemd":
            group = Group(_scope(way.bus, container_id, pids, parent, budget), origin)
            announce(group.path)
        else:
            top = _inside(way.parent, parent) if parent else f"{way.parent}/{tree.ALL}"
            group = Group(f"{top}/{container_id}", origin)
            announce(group.path)
            _chain(way.parent, group.path, needed | (budget.controllers() if budget else set()))
            if budget is not None:
                if missing := budget.controllers() - available(top):
                    said = explain_missing(missing)
                    raise RlError(f"the budget of the configuration cannot be kept: {said}")
                keep(top, budget)
        _settle(group.path, pids)
    except OSError as error:
        raise RlError(f"cannot make a cgroup: {error.strerror} ({error.filename})") from None
    return group


def _scope(
    bus: str, container_id: str, pids: Sequence[int], parent: str | None, budget: Budget | None
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
        path = f"{mount_point()}{own_cgroup('self')}"
        if budget is not None:
            keep_in_slice(manager, systemd.SLICE, os.path.dirname(path), budget)
    return path


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
    # The servers of every container have limits, where there is a controller.
    wanted = needed | (_SERVERS_NEED & available(top))
    if wanted - shared(top) and _occupied(top):
        _evacuate(top)
    _share(top)
    names = os.path.relpath(path, top).split("/")
    for attempt in range(_ATTEMPTS):
        try:
            for count in range(1, len(names) + 1):
                directory = "/".join([top, *names[:count]])
                tree.make(directory)
                if count < len(names):
                    _share(directory)
            break
        except FileNotFoundError:
            # The last container took the cgroup along, in which ours is going to be.
            if attempt == _ATTEMPTS - 1:
                raise


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
    for file, value in _SERVERS_LIMITS.items():
        with contextlib.suppress(OSError):  # no controller, no such file
            tree.write(f"{servers}/{file}", value)
