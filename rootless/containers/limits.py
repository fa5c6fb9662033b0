"""What a container may use, as asked, and as the ``linux.resources`` of config.json.

Pure. Made by the command line of run, create and update; read by spec, by the
supervisor and by inspect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

_PERIOD: Final = 100000
_BILLION: Final = 10**9

# The field of ours and its name in OCI's blockIO.
DEVICE_LIMITS: Final = {
    "device_read_bps": "throttleReadBpsDevice",
    "device_write_bps": "throttleWriteBpsDevice",
    "device_read_iops": "throttleReadIOPSDevice",
    "device_write_iops": "throttleWriteIOPSDevice",
}


class DeviceLimit(NamedTuple):
    """A rate for one block device, each second."""

    path: str
    major: int
    minor: int
    rate: int


class Limits(NamedTuple):
    """Docker's options. 0 and "" are no limit; bytes, and -1 where Docker has it for unlimited."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_high: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    blkio_weight: int = 0
    device_read_bps: Sequence[DeviceLimit] = ()
    device_write_bps: Sequence[DeviceLimit] = ()
    device_read_iops: Sequence[DeviceLimit] = ()
    device_write_iops: Sequence[DeviceLimit] = ()
    oom_score_adj: int | None = None
    cgroup_parent: str = ""
    cgroupns: str = "private"
    cgroups: str = "enabled"


def stored(value: Mapping[str, Any]) -> Limits:
    """Return what ``as_dict`` made of limits, also one of another version of ours."""
    kept = {name: item for name, item in value.items() if name in Limits._fields}
    for name in DEVICE_LIMITS:
        if name in kept:
            kept[name] = tuple(DeviceLimit(**item) for item in kept[name])
    return Limits(**kept)


def resources(limits: Limits) -> dict[str, Any]:
    """Return the ``linux.resources`` of these limits; empty if there are none."""
    unified = {"memory.high": str(limits.memory_high)} if limits.memory_high else {}
    pids = {"limit": limits.pids_limit} if limits.pids_limit else {}
    parts: dict[str, dict[str, Any]] = {
        "memory": _memory(limits),
        "cpu": _cpu(limits),
        "pids": pids,
        "blockIO": _block_io(limits),
        "unified": unified,
    }
    return {name: part for name, part in parts.items() if part}


def _memory(limits: Limits) -> dict[str, int]:
    found = {}
    if limits.memory:
        found["limit"] = limits.memory
    # Docker's default: as much swap as memory.
    if swap := limits.memory_swap or (2 * limits.memory if limits.memory > 0 else 0):
        found["swap"] = swap
    if limits.memory_reservation:
        found["reservation"] = limits.memory_reservation
    return found


def _cpu(limits: Limits) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.cpu_shares:
        found["shares"] = min(max(limits.cpu_shares, 2), 262144)
    if limits.nano_cpus:
        found |= {"quota": limits.nano_cpus * _PERIOD // _BILLION, "period": _PERIOD}
    if limits.cpu_quota:
        found["quota"] = limits.cpu_quota
    if limits.cpu_period:
        found["period"] = limits.cpu_period
    if limits.cpuset_cpus:
        found["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        found["mems"] = limits.cpuset_mems
    return found


def _block_io(limits: Limits) -> dict[str, Any]:
    found: dict[str, Any] = {"weight": limits.blkio_weight} if limits.blkio_weight else {}
    for field, name in DEVICE_LIMITS.items():
        if devices := getattr(limits, field):
            found[name] = [
                {"major": one.major, "minor": one.minor, "rate": one.rate} for one in devices
            ]
    return found
