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
        "port prune push save search secret service stack stats swarm tag "
        "unpause"
    ).split()
)
_RUN_OPTIONS: Final = frozenset(
    (
        "add-host annotation blkio-weight cgroup-parent cgroupns "
        "cpu-period cpu-quota cpu-shares cpus cpuset-cpus cpuset-mems device "
        "dns dns-option dns-search domainname expose gpus group-add ip ip6 ipc "
        "link mac-address memory memory-reservation memory-swap "
        "network-alias oom-kill-disable oom-score-adj pid pids-limit "
        "publish publish-all runtime shm-size "
        "sysctl ulimit uts"
    ).split()
)
_SHORT: Final = {
    "-c": "--cpu-shares",
    "-m": "--memory",
    "-p": "--publish",
    "-P": "--publish-all",
}


def is_command(name: str) -> bool:
    """Tell whether Docker has a command of that name that is not here."""
    return name in _COMMANDS


def run_option(name: str) -> str | None:
    """Return the long name of an option of `docker run` that is not here, None for any other."""
    name = _SHORT.get(name, name)
    return name if name.removeprefix("--") in _RUN_OPTIONS else None
