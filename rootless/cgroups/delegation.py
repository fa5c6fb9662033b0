"""Which controllers are delegated to this user, and why the others are not.

Reads alone. Called by `rl info`; a container's own cgroup says the same of itself.
"""

from __future__ import annotations

from typing import Final

from rootless.cgroups.place import CONTROLLERS, Way, mount_point
from rootless.files import read_text

# What a limit is refused without; cpuset is for few.
_WANTED: Final = frozenset(CONTROLLERS)


def controllers(way: Way) -> frozenset[str]:
    """Return the controllers that containers can have; RlError if systemd does not answer."""
    if way.kind == "none":
        return frozenset()
    text = read_text(f"{mount_point()}{parent(way)}/cgroup.controllers")
    return frozenset(text.split()) & _WANTED


def parent(way: Way) -> str:
    """Return the cgroup below which containers are made, "" for none."""
    if way.kind == "systemd":
        from rootless.cgroups import systemd

        with systemd.connected(way.bus) as manager:
            return manager.control_group()
    return way.parent.removeprefix(mount_point() or "")


def explain(way: Way, found: frozenset[str]) -> str:
    """Say what is missing and what the administrator can do, "" if nothing is."""
    if way.kind == "none":
        cure = f" (ask the administrator for: {way.cure})" if way.cure else ""
        return f"no limits, no pause and no stats: {way.reason}{cure}"
    missing = _WANTED - found
    kernel = frozenset(read_text(f"{mount_point()}/cgroup.controllers").split())
    parts = []
    if absent := missing - kernel:
        parts.append(f"this kernel, or whoever started it, has no {' '.join(sorted(absent))}")
    if kept := missing & kernel:
        names = " ".join(sorted(kept))
        parts.append(
            f"{names} is not delegated to you (ask the administrator for "
            f"Delegate={' '.join(sorted(found | kept))} in "
            "/etc/systemd/system/user@.service.d/delegate.conf)"
        )
    if not parts:
        return ""
    return f"no limits by the cgroup controllers {' '.join(sorted(missing))}: {'; '.join(parts)}"
