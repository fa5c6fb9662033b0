"""Capabilities by name, and how a process comes down to a chosen set, capabilities(7).

Owns the names, Docker's default set and the order of the calls. Called by the
container's init just before it becomes the container's user.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from rootless.kernel import syscalls

# In the kernel's order, <linux/capability.h>: the index is the number.
NAMES: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP "
        "LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER "
        "SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
        "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
        "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
        "CHECKPOINT_RESTORE"
    ).split()
)

# What Docker leaves to a container that asks for nothing.
DEFAULT: Final = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW "
        "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
)


def mask(names: Collection[str]) -> int:
    """Return the bit mask of capability names."""
    return sum(1 << NAMES.index(name) for name in set(names))


def limit_bounding_set(names: Collection[str]) -> None:
    """Drop all but ``names`` for this process and whatever it executes, for ever."""
    # A kernel newer than this table may know more capabilities than it names.
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    kept = mask(names)
    for number in range(last + 1):
        if not kept >> number & 1:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)


def limit_to(names: Collection[str], until_exec: Collection[str] = ()) -> None:
    """Leave exactly ``names`` permitted and effective, nothing inheritable or ambient.

    ``until_exec`` are left as well, and are gone with execve(2) if they are not in the bounding
    set: there root is given that set anew, and everybody else nothing.

    Nothing inheritable as Docker does it since CVE-2022-24769: files that carry
    inheritable capabilities must not raise a process that dropped its own.
    """
    kept = mask({*names, *until_exec})
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    syscalls.capset(kept, kept, 0)
