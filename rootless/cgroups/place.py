"""Where this user may make cgroups: a delegated subtree, or what systemd hands out on request.

Owns the order of the ways and the reason when there is none; changes nothing.
Read by the supervisor, which makes the cgroup, and by `rl info`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from rootless.files import read_text

# A host with both versions has the second one beside the first, mostly without controllers.
MOUNTS: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")

_UNIFIED: Final = "systemd.unified_cgroup_hierarchy=1 on the kernel's command line"

# What we have limits for.
CONTROLLERS: Final = ("cpu", "cpuset", "io", "memory", "pids")


class Level(NamedTuple):
    """A cgroup that we may write to: our own, or one above it."""

    path: str
    occupied: bool
    """Whether processes are in it itself, which keeps it from sharing controllers out."""


class Way(NamedTuple):
    """How a container comes to a cgroup; ``parent`` is where, ``bus`` whom to ask."""

    kind: Literal["delegated", "systemd", "none"]
    parent: str = ""
    bus: str = ""
    reason: str = ""
    cure: str = ""
    """What the administrator can do."""


def find() -> Way:
    """Return the way for this process. It costs a process without any delegation little."""
    mount = mount_point()
    if mount is None:
        return Way("none", reason="cgroup v2 is not mounted here", cure=_UNIFIED)
    own = own_cgroup("self")
    way = choose(own, _levels(mount, own), os.getuid(), bus(os.getuid()))
    if way.kind == "none" and mount != MOUNTS[0]:
        return Way(
            "none",
            reason="this machine keeps the controllers in cgroup v1, which cannot be delegated",
            cure=_UNIFIED,
        )
    return way


def choose(own: str, levels: Sequence[Level], uid: int, socket: str | None) -> Way:
    """Decide, by our own cgroup, the writable ones from it upwards, and the user's D-Bus socket."""
    # All below the user's systemd is ours to write, but its to manage.
    if levels and f"user@{uid}.service" not in own.split("/"):
        # No process may be in a cgroup that shares controllers out: better one without any.
        free = next((level for level in levels if not level.occupied), levels[0])
        return Way("delegated", parent=free.path)
    if socket is not None:
        return Way("systemd", bus=socket)
    return Way(
        "none",
        reason=f"no cgroup is delegated to you: {own or 'our own'} is not yours, and there is no "
        f"systemd --user at /run/user/{uid}/bus",
        cure=f"loginctl enable-linger {os.environ.get('USER') or uid}",
    )


def mount_point() -> str | None:
    """Return where cgroup v2 is mounted, None if it is not."""
    for path in MOUNTS:
        if os.path.exists(f"{path}/cgroup.controllers") or os.path.exists(f"{path}/cgroup.procs"):
            return path
    return None


def own_cgroup(pid: str) -> str:
    """Return the cgroup of a process below the mount point, as /proc/PID/cgroup has it."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                if line.startswith("0::"):
                    return line[3:].rstrip("\n")
    except OSError:
        pass
    return ""


def _levels(mount: str, own: str) -> list[Level]:
    found: list[Level] = []
    # One outside of our cgroup namespace begins so.
    if not own or own.startswith("/.."):
        return found
    path = f"{mount}{own}".rstrip("/")
    while path.startswith(mount) and _writable(path):
        found.append(Level(path, bool(read_text(f"{path}/cgroup.procs"))))
        path = os.path.dirname(path)
    return found


def _writable(path: str) -> bool:
    names = ("", "/cgroup.procs", "/cgroup.subtree_control")
    return all(os.access(path + name, os.W_OK) for name in names)


def bus(uid: int) -> str | None:
    """Return the socket of the user's D-Bus. su, cron and CI leave its variable out."""
    for directory in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        try:
            if directory and os.stat(f"{directory}/bus").st_uid == uid:
                return f"{directory}/bus"
        except OSError:
            pass
    return None
