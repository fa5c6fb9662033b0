"""What /proc says of processes: how one is told from another that got its number later.

Reads only. Small, for every command that looks at a container needs it.
"""

from __future__ import annotations

from pathlib import Path


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, or None if there is none.

    With the pid it names one process of this boot for ever (proc(5), field 22
    of stat). A zombie counts as gone: nothing of it runs any more.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name, may hold spaces and parentheses of its own.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    """Return the kernel's identifier of this boot, random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
