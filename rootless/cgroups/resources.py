"""From the ``linux.resources`` of a config.json to the files of cgroup v2.

Pure. OCI's fields speak of the first version; how its numbers become those of
the second is what crun(1) documents. Called by ``group``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

Resources = Mapping[str, Any]

_DEVICE_LIMITS: Final = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


class Setting(NamedTuple):
    """A value for a file; ``shared`` is for the container and its servers together.

    A weight counts among neighbours, which are other containers; and what a container reads and
    writes on disk is read and written by its overlay server.
    """

    file: str
    value: str
    shared: bool = False

    @property
    def controller(self) -> str:
        """Which controller has that file."""
        return self.file.partition(".")[0]


def settings(resources: Resources) -> list[Setting]:
    """Return what is to be written, in this order."""
    return [
        *_memory(resources.get("memory", {})),
        *_cpu(resources.get("cpu", {})),
        *_pids(resources.get("pids", {})),
        *_io(resources.get("blockIO", {})),
        *(Setting(file, value) for file, value in resources.get("unified", {}).items()),
    ]


def controllers(resources: Resources) -> set[str]:
    """Return the controllers that are needed."""
    return {setting.controller for setting in settings(resources)}


def _memory(memory: Mapping[str, int]) -> list[Setting]:
    found = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None:
        found.append(Setting("memory.max", _or_max(limit)))
    if swap is not None:
        # OCI's is both together.
        rest = "max" if swap < 0 else str(swap - max(limit or 0, 0))
        found.append(Setting("memory.swap.max", rest))
    if "reservation" in memory:
        # None is protected by more than what is above it.
        low = str(memory["reservation"])
        found += [Setting("memory.low", low, shared=True), Setting("memory.low", low)]
    return found


def _cpu(cpu: Mapping[str, Any]) -> list[Setting]:
    found = []
    if shares := cpu.get("shares"):
        found.append(Setting("cpu.weight", str(cpu_weight(shares)), shared=True))
    if "quota" in cpu or "period" in cpu:
        quota = _or_max(cpu.get("quota") or -1)
        found.append(Setting("cpu.max", f"{quota} {cpu.get('period') or 100000}"))
    if cpus := cpu.get("cpus"):
        found.append(Setting("cpuset.cpus", cpus))
    if mems := cpu.get("mems"):
        found.append(Setting("cpuset.mems", mems))
    return found


def _pids(pids: Mapping[str, int]) -> list[Setting]:
    return [Setting("pids.max", _or_max(pids["limit"]))] if "limit" in pids else []


def _io(block: Mapping[str, Any]) -> list[Setting]:
    found = []
    if weight := block.get("weight"):
        # Of the two ways of the kernel to share a device out, each has a weight of its own.
        found.append(Setting("io.bfq.weight", f"default {bfq_weight(weight)}", shared=True))
        found.append(Setting("io.weight", f"default {io_weight(weight)}", shared=True))
    for field, key in _DEVICE_LIMITS.items():
        found += [
            Setting("io.max", f"{one['major']}:{one['minor']} {key}={one['rate']}", shared=True)
            for one in block.get(field, ())
        ]
    return found


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def cpu_weight(shares: int) -> int:
    """Return 1…10000 for shares of 2…262144."""
    return 1 + (shares - 2) * 9999 // 262142


def io_weight(weight: int) -> int:
    """Return 1…10000 for a blkio weight of 10…1000."""
    return 1 + (weight - 10) * 9999 // 990


def bfq_weight(weight: int) -> int:
    """Return 1…1000, as systemd does of an io.weight, of which 100 is normal for both."""
    found = io_weight(weight)
    return found if found <= 100 else 100 + (found - 100) * 900 // 9900
