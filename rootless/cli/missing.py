"""What people who know Docker will type, and what is not here yet.

Owns the names of Docker's commands and of `docker run`'s options that have no
counterpart. Pure; imported when a name is not found.
"""

from __future__ import annotations

from typing import Final

_COMMANDS: Final = frozenset(
    (
        "build builder buildx commit compose config context df "
        "history import load login logout manifest network node pause plugin "
        "prune push save search secret service stack stats swarm tag "
        "unpause"
    ).split()
)
_RUN_OPTIONS: Final = frozenset(
    (
        "annotation blkio-weight cgroup-parent cgroupns "
        "cpu-period cpu-quota cpu-shares cpus cpuset-cpus cpuset-mems device "
        "domainname gpus group-add ip6 ipc "
        "link memory memory-reservation memory-swap "
        "network-alias oom-kill-disable oom-score-adj pid pids-limit "
        "runtime shm-size "
        "sysctl ulimit uts"
    ).split()
)
_SHORT: Final = {
    "-c": "--cpu-shares",
    "-m": "--memory",
}


def is_command(name: str) -> bool:
    """Tell whether Docker has a command of that name that is not here."""
    return name in _COMMANDS


def run_option(name: str) -> str | None:
    """Return the long name of an option of `docker run` that is not here, None for any other."""
    name = _SHORT.get(name, name)
    return name if name.removeprefix("--") in _RUN_OPTIONS else None
