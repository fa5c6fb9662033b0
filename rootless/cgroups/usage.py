"""What a container and its servers have used, read from their cgroup.

Reads alone. Called by `rl stats`, twice for what is a rate.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from rootless.cgroups import tree
from rootless.files import read_text


class Usage(NamedTuple):
    """One moment; None is what no controller counts here."""

    moment: float
    cpu_usec: int
    servers_cpu_usec: int
    memory: int | None
    servers_memory: int | None
    memory_limit: int
    pids: int | None
    pids_limit: int | None
    read_bytes: int | None
    written_bytes: int | None


def sample(path: str) -> Usage:
    """Return what the cgroup of a container says now."""
    leaf, servers = tree.leaf(path), f"{path}/{tree.SERVERS}"
    limit = _number(f"{leaf}/memory.max")
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    block = _block_io(f"{path}/io.stat")
    return Usage(
        moment=time.monotonic(),
        cpu_usec=_cpu(leaf),
        servers_cpu_usec=_cpu(servers),
        memory=_memory(leaf),
        servers_memory=_memory(servers),
        memory_limit=whole if limit is None else min(limit, whole),
        pids=_number(f"{leaf}/pids.current"),
        pids_limit=_number(f"{leaf}/pids.max"),
        read_bytes=block[0] if block else None,
        written_bytes=block[1] if block else None,
    )


def _cpu(directory: str) -> int:
    return tree.parse_counters(read_text(f"{directory}/cpu.stat")).get("usage_usec", 0)


def _memory(directory: str) -> int | None:
    """Return the memory in use, as Docker counts it: without what could be dropped at once."""
    total = _number(f"{directory}/memory.current")
    if total is None:
        return None
    inactive = tree.parse_counters(read_text(f"{directory}/memory.stat")).get("inactive_file", 0)
    return max(total - inactive, 0)


def _number(file: str) -> int | None:
    text = read_text(file).strip()
    return int(text) if text.isdecimal() else None


def _block_io(file: str) -> tuple[int, int] | None:
    if not os.path.exists(file):
        return None
    fields = [item.partition("=") for item in read_text(file).split()]
    totals = [
        sum(int(value) for name, _, value in fields if name == wanted)
        for wanted in ("rbytes", "wbytes")
    ]
    return totals[0], totals[1]
