"""The process that holds what containers share, where each container has a cgroup."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.guest.machine import IMAGE, TREE, rl, running, wait_until


def holders() -> list[Path]:
    """Return the cgroups of the processes rl-holder."""
    found: dict[str, tuple[str, str]] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "rl-holder\n":
                parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
                found[pid] = parent, Path(f"/proc/{pid}/cgroup").read_text().strip()
    # What it has done by a child has its name.
    return [
        Path(f"{TREE}{path.removeprefix('0::')}")
        for parent, path in found.values()
        if parent not in found
    ]


def test_it_is_in_no_containers_cgroup_and_leaves_none() -> None:
    rl("network", "create", "shared")
    try:
        with running("first", "--network", "shared", IMAGE, "sleep", "1000") as leaf:
            (own,) = holders()
            assert own.name.startswith("rl-holder")
            assert own.parent == leaf.parent.parent
            with running("second", "--network", "shared", IMAGE, "sleep", "1000"):
                rl("rm", "-f", "first")
                wait_until(lambda: not leaf.exists())
                assert holders() == [own]
                answer = rl("exec", "second", "nslookup", "second").stdout
                assert "Name:\tsecond" in answer
        wait_until(lambda: not holders() and not own.exists())
    finally:
        rl("network", "rm", "-f", "shared")
