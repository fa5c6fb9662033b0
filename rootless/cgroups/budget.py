"""What all containers of the user may have together, as limits of the cgroup above them all.

Owns that cgroup's limits, and takes back what the configuration has no more. Called by ``group``
at each start; containers with a parent of their own choice are not below.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from rootless.cgroups import resources as limits
from rootless.cgroups import tree
from rootless.files import read_text

if TYPE_CHECKING:
    from rootless.cgroups.systemd import Systemd

_PERIOD: Final = 100000
# The files, and what systemd calls them: as a property, and as the file that keeps one.
_PROPERTIES: Final = {
    "memory.max": ("MemoryMax", "MemoryMax"),
    "cpu.max": ("CPUQuotaPerSecUSec", "CPUQuota"),
    "pids.max": ("TasksMax", "TasksMax"),
}
_INFINITY: Final = (1 << 64) - 1


class Budget(NamedTuple):
    """None is no limit."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def resources(self) -> limits.Resources:
        """Return it as config.json would have it."""
        found: dict[str, dict[str, int]] = {}
        if self.memory is not None:
            found["memory"] = {"limit": self.memory}
        if self.cpus is not None:
            found["cpu"] = {"quota": int(self.cpus * _PERIOD), "period": _PERIOD}
        if self.pids is not None:
            found["pids"] = {"limit": self.pids}
        return found

    def files(self) -> dict[str, str]:
        """Return what the files are to hold, "max" for no limit."""
        given = {setting.file: setting.value for setting in limits.settings(self.resources())}
        return {file: given.get(file, "max") for file in _PROPERTIES}

    def controllers(self) -> set[str]:
        """Return the controllers that it takes."""
        return limits.controllers(self.resources())


def keep(directory: str, budget: Budget) -> None:
    """Set the limits of a cgroup of ours; OSError where the kernel refuses."""
    for file, value in budget.files().items():
        path = f"{directory}/{file}"
        if not _holds(path, value):
            tree.write(path, value)


def keep_in_slice(manager: Systemd, unit: str, directory: str, budget: Budget) -> None:
    """Have systemd set the limits of a slice, whose cgroup is ``directory``."""
    files = budget.files()
    wanted = {file for file, value in files.items() if not _holds(f"{directory}/{file}", value)}
    if not wanted:
        return
    numbers = {
        "memory.max": budget.memory,
        "cpu.max": None if budget.cpus is None else int(budget.cpus * 1_000_000),
        "pids.max": budget.pids,
    }
    # What nobody has set at runtime, the person's own file of this unit says: it stays.
    ours = {os.path.basename(path) for path in manager.drop_ins(unit) if "/user.control/" in path}
    properties = []
    for file in sorted(wanted):
        number, (name, kept_as) = numbers[file], _PROPERTIES[file]
        if number is not None or f"50-{kept_as}.conf" in ours:
            properties.append((name, ("t", _INFINITY if number is None else number)))
    if properties:
        manager.limit(unit, properties)


def _holds(path: str, value: str) -> bool:
    """Tell whether a limit is what it is to be; there is none where there is no controller."""
    there = read_text(path).strip() or "max"
    return there == value or (value == "max" and there.split()[0] == "max")
