"""The cgroup of one container, by its path: freezing, killing, entering, removing.

Owns its layout: ``container`` holds the container's processes and its limits,
``servers`` the supervisor and the overlay server. Called by the supervisor and
by commands that look at a container from outside; ``group`` makes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time

from rootless.cgroups.place import own_cgroup
from rootless.errors import RlError
from rootless.files import read_text

CONTAINER = "container"
SERVERS = "servers"
# All containers of the user, below a cgroup that was delegated to us.
ALL = "rl"

# What we made says so. Linux has these attributes since 5.7.
_MARK = "user.rl.made"

# For a kernel to freeze or to end what was killed.
_PATIENCE_SECONDS = 60.0


def is_scope(path: str) -> bool:
    """Tell whether a container's cgroup is a unit of systemd's."""
    return path.endswith(".scope")


def leaf(path: str) -> str:
    """Return where the container's own processes are."""
    return f"{path}/{CONTAINER}"


def write(file: str, value: str) -> None:
    """Write a value as the kernel wants it: at once, into a file that is there."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def parse_counters(text: str) -> dict[str, int]:
    """Read lines of ``name number``, as memory.events has them."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def frozen(path: str) -> bool:
    """Tell whether the container is paused."""
    return read_text(f"{leaf(path)}/cgroup.freeze").strip() == "1"


def freeze(path: str, wanted: bool) -> None:
    """Stop all processes of the container where they are, or let them go on; wait for it."""
    file = f"{leaf(path)}/cgroup.freeze"
    try:
        write(file, str(int(wanted)))
    except OSError as error:
        raise RlError(f"cannot write {file}: {error.strerror}") from None
    if not _reached(leaf(path), "frozen", int(wanted)):
        raise RlError("the container's processes did not stop in time")


def kill(path: str) -> bool:
    """Kill all that is left of the container; tell whether nothing is."""
    try:
        write(f"{leaf(path)}/cgroup.kill", "1")
    except FileNotFoundError:
        # Linux 5.13 has no such file; or all is gone.
        for directory, _, _ in os.walk(leaf(path)):
            for pid in read_text(f"{directory}/cgroup.procs").split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)
    except OSError:
        return False
    return _reached(leaf(path), "populated", 0)


def _reached(directory: str, what: str, value: int) -> bool:
    """Wait until cgroup.events says so, or there is no such cgroup any more."""
    try:
        fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + _PATIENCE_SECONDS
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    try:
        while True:
            try:
                if f"{what} {value}" in os.pread(fd, 4096, 0).decode():
                    return True
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return True
                raise
            rest = deadline - time.monotonic()
            if rest <= 0:
                return False
            poll.poll(rest * 1000)
    finally:
        os.close(fd)


def remove(path: str) -> bool:
    """Remove a cgroup with all that are below it; tell whether it is gone."""
    deadline = time.monotonic() + 1
    while os.path.isdir(path):
        for directory, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        # What was killed stays for a moment.
        if time.monotonic() > deadline:
            break
        if os.path.isdir(path):
            time.sleep(0.01)
    return not os.path.isdir(path)


def make(path: str) -> None:
    """Make a cgroup that goes with the last container below it; one that is there stays."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        with contextlib.suppress(OSError):
            os.setxattr(path, _MARK, b"1")


def is_ours(path: str) -> bool:
    """Tell whether we made this cgroup."""
    try:
        return os.path.basename(path) == ALL or bool(os.getxattr(path, _MARK))
    except OSError:
        return False


def sweep(path: str) -> None:
    """End and remove what the supervisor of a container left, which was killed."""
    if os.path.isdir(path):
        from rootless.cgroups import reservation

        kill(path)
        # Its scopes are systemd's to remove; it would not know that we did.
        if is_scope(path):
            return
        reserved = reservation.reserves(path)
        if not remove(path):
            return
        if reserved:
            reservation.pass_up(path)
        # The last of them all takes along what we made for it.
        parent = os.path.dirname(path)
        with contextlib.suppress(OSError):
            while is_ours(parent):
                os.rmdir(parent)
                parent = os.path.dirname(parent)


def admit(path: str, pid: int, socket: str | None) -> None:
    """Let a process of ours, wherever it is, into ``servers``; from there it can go on inside.

    ``socket`` is that of the user's D-Bus, for a scope of systemd's.
    """
    try:
        write(f"{path}/{SERVERS}/cgroup.procs", str(pid))
    except OSError as error:
        unit = os.path.basename(path)
        if not is_scope(path) or socket is None:
            raise RlError(
                f"cannot enter the container's cgroup from {own_cgroup('self')}: {error.strerror} "
                "(both have to be in what was delegated to you)"
            ) from None
        from rootless.cgroups import systemd

        with systemd.connected(socket) as manager:
            manager.attach(unit, f"/{SERVERS}", pid)
