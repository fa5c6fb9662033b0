"""The containers that one joins, as they are at a start: that they run, and what is taken of them.

Owns the descriptors by which PID 1 is cloned into their namespaces, the memory in /dev/shm that
belongs to an IPC namespace, and the copies of the files in /etc that belong to a network. The
containers are hostile: what is read of their file systems is a descriptor. Called by the
supervisor; who joins whom was ``joining``'s decision.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from rootless.channel import Channel
from rootless.containers import command, interpreter
from rootless.containers.handshake import failures_sent
from rootless.containers.idmaps import maps_of
from rootless.containers.joining import NAMES
from rootless.containers.store import Container, ContainerStore
from rootless.errors import ContainerNotFound, RlError
from rootless.files import replace_file
from rootless.kernel import process, sibling, syscalls

_FLAGS: Final = {
    "network": syscalls.CLONE_NEWNET,
    "pid": syscalls.CLONE_NEWPID,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "user": 0,  # joined in any case
}
MEMORY: Final = "/dev/shm"
# What a container may have made of its files in /etc, as far as another one takes it.
_LARGEST_FILE: Final = 1 << 20


class Joined(NamedTuple):
    """Those that run: which namespaces are joined by each pidfd, and mounts by their targets."""

    namespaces: dict[int, int]
    trees: dict[str, int]
    settings: dict[str, Any]
    """The container's process, as config.json has it."""

    def clone(
        self, main: Callable[[], int], flags: int, keep: Iterable[int], cgroup: int
    ) -> process.Child:
        """Run ``main`` in these namespaces and in new ones, as ``process.fork``."""

        def before() -> None:
            # What is not dumpable any more cannot say so itself.
            command.set_oom_score(self.settings)

        # All are in one user namespace, which is entered with any of them.
        others = tuple((pidfd, kind) for pidfd, kind in self.namespaces.items() if kind)
        return sibling.fork(
            main,
            flags,
            sibling.Entered(next(iter(self.namespaces)), others),
            keep,
            cgroup,
            dumpable=False,
            first=before,
            failed="cannot join the namespaces",
        )

    def close(self) -> None:
        """Close all of it, once."""
        for fd in (*self.namespaces, *self.trees.values()):
            os.close(fd)
        self.namespaces.clear()
        self.trees.clear()


def open_all(containers: ContainerStore, container: Container) -> Joined:
    """Return what a container that is being started joins; RlError where one does not run."""
    found = Joined({}, {}, container.config["process"])
    try:
        users = set()
        for kind, target_id in container.extra.joined.items():
            pidfd, pid = _open_init(containers, kind, target_id)
            found.namespaces[pidfd] = _FLAGS[kind]
            users.add(os.stat(f"/proc/{pid}/ns/user").st_ino)
            if kind == "ipc":
                found.trees[MEMORY] = _memory_of(pidfd)
            if kind == "network":
                _copy_files(containers.path(target_id), container)
        if len(users) > 1:
            raise RlError("cannot join containers that are in different user namespaces")
        if "pid" in container.extra.joined:
            _check_interpreter(containers, container, pid)
    except BaseException:
        found.close()
        raise
    return found


def _open_init(containers: ContainerStore, kind: str, target_id: str) -> tuple[int, int]:
    try:
        target = containers.by_id(target_id)
    except ContainerNotFound:
        raise RlError(
            f"cannot join the {NAMES[kind]} of container {target_id[:12]}: it was removed"
        ) from None
    init = target.state.init
    if target.state.status == "running" and init is not None:
        try:
            pidfd = os.pidfd_open(init.pid)
        except ProcessLookupError:
            pass
        else:
            # Asked now that the number cannot come to mean another process.
            if init.alive():
                return pidfd, init.pid
            os.close(pidfd)
    raise RlError(
        f"cannot join the {NAMES[kind]} of a non running container: {target.name} (start it first)"
    )


def _check_interpreter(containers: ContainerStore, container: Container, init: int) -> None:
    """Raise RlError if somebody in the PID namespace of ``init`` could take over our set-up.

    We are not dumpable there. But an interpreter that has to be executed anew can be traced by
    whoever has CAP_SYS_PTRACE in the user namespace it is executed in.
    """
    if not interpreter.is_changeable(maps_of(container.config)):
        return
    for other in containers.list():
        theirs = other.state.init
        if (
            theirs is not None
            and "CAP_SYS_PTRACE" in other.config["process"]["capabilities"]["bounding"]
            and _same_namespace(theirs.pid, init)
        ):
            raise RlError(
                f"cannot join the PID namespace: {other.name} has CAP_SYS_PTRACE there, and could "
                f"take over the Python that starts us, since {sys.executable} belongs to you "
                "(install rl with a Python of the system)"
            )


def _same_namespace(one: int, other: int) -> bool:
    try:
        return os.path.samefile(f"/proc/{one}/ns/pid", f"/proc/{other}/ns/pid")
    except OSError:
        return False


def _memory_of(pidfd: int) -> int:
    """Return the mount on a container's /dev/shm as a mount that is mounted nowhere.

    Taken by a process that joins for that, and executes nothing there.
    """
    here, there = Channel.pair()

    def main() -> int:
        with failures_sent(there):
            syscalls.setns(pidfd, syscalls.CLONE_NEWUSER)
            syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
            resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
            flags = os.O_PATH | os.O_DIRECTORY
            place = syscalls.openat2(syscalls.AT_FDCWD, MEMORY, flags, resolve)
            clone = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
            there.send({"tree": True}, syscalls.open_tree("", clone, place))
        return 0

    child = process.fork(main, keep=[pidfd, there.fileno()])
    there.close()
    message, fds = here.receive()
    child.wait()
    here.close()
    if not fds:
        raise RlError(f"cannot share memory: {(message or {}).get('error')}")
    return fds[0]


def _copy_files(source: os.PathLike[str], container: Container) -> None:
    """Take the names of a network: its container may have changed them, or they may be new."""
    for name in ("hosts", "hostname", "resolv.conf"):
        try:
            with open(os.path.join(source, name), "rb") as file:
                text = file.read(_LARGEST_FILE)
        except FileNotFoundError:
            continue
        replace_file(container.path / name, text)
        (container.path / name).chmod(0o644)
