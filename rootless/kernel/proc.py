"""What /proc says of processes: how one is told from another that got its number later.

Reads only. Small, for every command that looks at a container needs it.
"""

from __future__ import annotations

import os
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None if there is none.

    With the pid it names one process of this boot for ever (proc(5), field 22
    of stat). A zombie counts as gone: nothing of it runs any more.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the third on, None if nothing of it runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name, may hold spaces and parentheses of its own.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else fields


def parent(pid: int) -> int | None:
    """Return the parent of a process, or None if there is none."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def parents() -> dict[int, int]:
    """Return the parent of every process that runs."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return {pid: known for pid in pids if (known := parent(pid)) is not None}


def descendants(root: int) -> dict[int, int]:
    """Return the children of a process, theirs, and so on, each with its parent."""
    children: dict[int, list[int]] = {}
    for pid, known in parents().items():
        children.setdefault(known, []).append(pid)
    found: dict[int, int] = {}
    pending = [root]
    while pending:
        above = pending.pop()
        new = children.get(above, [])
        found |= dict.fromkeys(new, above)
        pending += new
    return found


def boot_id() -> str:
    """Return the kernel's identifier of this boot, random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
