"""What a run left behind: processes and mounts that have to do with a directory.

Reads /proc alone. Used at the end of the session, and by tests that kill our own processes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from rootless import trees
from rootless.kernel import userns


def processes(directory: Path) -> list[str]:
    """Return ``PID COMMAND`` of each process, other than this one, that knows ``directory``.

    A process of ours has it in its environment or arguments; a process of a container has it in
    its mount table, which names where /etc/hosts and the like are bound from. That table begins
    paths at the root of a file system, so what is looked for is the directory's name alone: it
    has to be unique, as those of mkdtemp are.
    """
    name = os.fsencode(directory.name)
    found = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        if pid == os.getpid():
            continue
        command = _read(pid, "cmdline")
        if name in b"\n".join([command, _read(pid, "environ"), _read(pid, "mountinfo"), _cwd(pid)]):
            found.append(f"{pid} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def mounts(directory: Path) -> list[str]:
    """Return the lines of this process's mount table that know ``directory``."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if directory.name in line]


def wait_for_none(directory: Path, seconds: float = 60) -> list[str]:
    """Return the processes and mounts that are still there when ``seconds`` have passed."""
    deadline = time.monotonic() + seconds
    while (left := processes(directory) + mounts(directory)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def remove_tree(directory: Path) -> None:
    """Remove a directory whose files may belong to the user's subordinate ids."""
    if directory.exists():
        userns.call(trees.remove_tree, directory)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # another user's, or gone
        return b""


def _cwd(pid: int) -> bytes:
    try:
        return os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return b""
