"""The processes of a running container, as the host's ps sees them: `docker top`.

Reads /proc alone: whoever is in the PID namespace of PID 1 belongs to the
container. The columns are those of ps(1), which is asked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rootless.containers.store import Container
from rootless.errors import RlError


def listing(container: Container, options: Sequence[str]) -> list[list[str]]:
    """Return the header of ``ps OPTIONS`` and a row for each process of the container."""
    import subprocess

    init = container.state.init
    if container.state.status != "running" or init is None:
        raise container.not_running()
    members = _members(init.pid) if container.owns_processes else _among_others(container, init.pid)
    try:
        done = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RlError("ps is not installed (Debian, Ubuntu: procps)") from None
    if done.returncode:
        raise RlError(f"ps {' '.join(options)} failed: {' '.join(done.stderr.split())}")
    header, *lines = done.stdout.splitlines()
    titles = header.split()
    if "PID" not in titles:
        raise RlError(f"ps {' '.join(options)} shows no column PID")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines]
    return [titles, *(row for row in rows if row[column : column + 1] and row[column] in members)]


def _members(init: int) -> set[str]:
    """Return the processes in the PID namespace of ``init``, those of exec included."""
    namespace = _namespace(str(init))
    return {pid for pid in os.listdir("/proc") if pid.isdecimal() and _namespace(pid) == namespace}


def _among_others(container: Container, init: int) -> set[str]:
    """Return the processes of a container that has no PID namespace of its own."""
    from rootless.containers.strays import find

    strays = find(container, init)
    try:
        return set(map(str, strays.members()))
    finally:
        strays.close()


def _namespace(pid: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
