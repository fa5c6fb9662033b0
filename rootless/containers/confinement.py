"""What an Isolation comes to: the capabilities and the hidden paths that config.json names.

Owns the defaults, which are Docker's. Pure. Called by spec.
"""

from __future__ import annotations

from typing import Final

from rootless.containers.isolation import ALL, Isolation
from rootless.kernel.capabilities import DEFAULT, NAMES

_MASKED: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def capabilities(isolation: Isolation, *, connected: bool) -> list[str]:
    """Return what the container's root has; what was added wins over what was dropped.

    A container that is ``connected`` by a program of ours has no CAP_NET_RAW unless it was added:
    what it made up itself, the program would send on, to the host's loopback, too.
    """
    added, dropped = isolation.cap_add, isolation.cap_drop
    if isolation.privileged:
        return list(NAMES)
    if ALL in added:
        return [name for name in NAMES if name not in dropped]
    if connected:
        dropped = (*dropped, "CAP_NET_RAW")
    kept = () if ALL in dropped else (name for name in DEFAULT if name not in dropped)
    return list(dict.fromkeys((*kept, *added)))


def masked_paths(isolation: Isolation) -> list[str]:
    """Return what cannot be read in the container."""
    usual = () if isolation.privileged else _MASKED
    return [path for path in usual if not _unmasked(path, isolation)] + list(isolation.masked)


def readonly_paths(isolation: Isolation) -> list[str]:
    """Return what cannot be written in the container."""
    usual = () if isolation.privileged else _READONLY
    return [path for path in usual if not _unmasked(path, isolation)]


def writable_system(isolation: Isolation) -> set[str]:
    """Return which of /sys and /sys/fs/cgroup are not mounted read-only."""
    if isolation.privileged:
        return {"/sys", "/sys/fs/cgroup"}
    return {path for path in ("/sys/fs/cgroup",) if _unmasked(path, isolation)}


def _unmasked(path: str, isolation: Isolation) -> bool:
    return any(pattern == ALL or _matches(path, pattern) for pattern in isolation.unmasked)


def _matches(path: str, pattern: str) -> bool:
    # A star stays within a component, as in Go's path.Match.
    from fnmatch import fnmatchcase

    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
