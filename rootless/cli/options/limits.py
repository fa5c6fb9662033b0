"""What a container may use: memory, processors, processes, block devices. Of update, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from rootless.cli.options import together
from rootless.errors import RlError

if TYPE_CHECKING:
    from rootless.containers.limits import DeviceLimit, Limits

_LEAST_MEMORY: Final = 6 << 20
_BILLION: Final = 10**9


def _devices(kind: str, unit: str) -> Any:
    return click.option(
        f"--device-{kind}", multiple=True, metavar=f"DEVICE:{unit}", help="Limit a block device."
    )


changeable = together(
    click.option("-m", "--memory", metavar="SIZE", help="Kill what takes more memory."),
    click.option("--memory-swap", metavar="SIZE", help="Memory and swap together; -1: any swap."),
    click.option("--memory-reservation", metavar="SIZE", help="Memory that is kept for it."),
    click.option("--memory-high", metavar="SIZE", help="Slow down what takes more memory."),
    click.option("--cpus", metavar="N", help="Processors, such as 1.5."),
    click.option("-c", "--cpu-shares", type=int, help="Weight among others: 1024 is normal."),
    click.option("--cpu-quota", type=int, metavar="MICROSECONDS", help="Of each period."),
    click.option("--cpu-period", type=int, metavar="MICROSECONDS", help="100000 is normal."),
    click.option("--cpuset-cpus", metavar="CPUS", help="Which processors: 0-2,7."),
    click.option("--cpuset-mems", metavar="NODES", help="Which memory nodes."),
    click.option("--pids-limit", type=int, metavar="N", help="Processes and threads; -1: any."),
    click.option("--blkio-weight", type=int, metavar="WEIGHT", help="Of block I/O: 10 to 1000."),
)

options = together(
    changeable,
    _devices("read-bps", "SIZE"),
    _devices("write-bps", "SIZE"),
    _devices("read-iops", "N"),
    _devices("write-iops", "N"),
    click.option(
        "--oom-score-adj", type=int, metavar="N", help="Killed sooner (1000) for want of memory."
    ),
    click.option("--cgroup-parent", metavar="CGROUP", help="Where its cgroup is made."),
    click.option(
        "--cgroupns", type=click.Choice(["private", "host"]), help="Which cgroups it sees."
    ),
    click.option(
        "--cgroups", type=click.Choice(["enabled", "disabled"]), help="Whether it has a cgroup."
    ),
)

_NAMES: Final = (
    "memory memory_swap memory_reservation memory_high cpus cpu_shares cpu_quota cpu_period "
    "cpuset_cpus cpuset_mems pids_limit blkio_weight device_read_bps device_write_bps "
    "device_read_iops device_write_iops oom_score_adj cgroup_parent cgroupns cgroups"
).split()


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's field; RlError for a limit that makes no sense."""
    given = given_of(values)
    if not given:
        return {}
    from rootless.containers.limits import Limits

    return {"limits": changed(Limits(), given)}


def given_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options that were given."""
    return {name: values[name] for name in _NAMES if values.get(name) not in (None, ())}


def changed(limits: Limits, given: Mapping[str, Any]) -> Limits:
    """Return the limits with those changed that were given; RlError where they make no sense."""

    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name == "cpus":
            if "cpu_quota" in given or "cpu_period" in given:
                raise RlError("conflicting options: --cpus with --cpu-quota or --cpu-period")
            fields |= {"nano_cpus": _nano_cpus(value), "cpu_quota": 0, "cpu_period": 0}
        elif name == "memory_swap" and value == "-1":
            fields[name] = -1
        elif name.startswith("memory"):
            fields[name] = _size(value)
        elif name.startswith("device_"):
            bytes_ = name.endswith("bps")
            fields[name] = tuple(_device_limit(text, bytes_=bytes_) for text in value)
        else:
            fields[name] = value
    if "cpu_quota" in given or "cpu_period" in given:
        fields["nano_cpus"] = 0
    result = limits._replace(**fields)
    _check(result, given)
    return result


def _check(limits: Limits, given: Mapping[str, Any]) -> None:
    memory, swap = limits.memory, limits.memory_swap
    if 0 < memory < _LEAST_MEMORY:
        raise RlError("minimum memory limit allowed is 6MB")
    if swap > 0 and not memory:
        raise RlError("--memory-swap needs --memory: it is the limit of both together")
    if 0 < swap < memory:
        raise RlError("minimum memoryswap limit should be larger than memory limit")
    if memory and limits.memory_reservation > memory:
        raise RlError("minimum memory limit can not be less than memory reservation limit")
    if limits.cpu_period and not 1000 <= limits.cpu_period <= 1000000:
        raise RlError("CPU cfs period can not be less than 1ms (1000) or larger than 1s (1000000)")
    if limits.cpu_quota and 0 <= limits.cpu_quota < 1000:
        raise RlError("CPU cfs quota can not be less than 1ms (1000)")
    if limits.cpu_shares < 0:
        raise RlError(f"invalid CPU shares ({limits.cpu_shares}): value must be positive")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise RlError("range of blkio weight is from 10 to 1000")
    score = limits.oom_score_adj
    if score is not None and not -1000 <= score <= 1000:
        raise RlError(f"invalid value {score}, range for oom score adj is [-1000, 1000]")
    for name in ("cpuset_cpus", "cpuset_mems"):
        if name in given and not set(given[name]) <= set("0123456789,-"):
            raise RlError(f"invalid value {given[name]!r} for {name.replace('_', ' ')}")


def _size(text: str) -> int:
    from rootless.sizes import parse_size

    return parse_size(text)


def _nano_cpus(text: str) -> int:
    import os

    try:
        nano = round(float(text) * _BILLION)
    except (ValueError, OverflowError):  # also of nan and inf
        raise RlError(f"invalid number of processors {text!r}") from None
    there = os.cpu_count() or 1
    if nano and not _BILLION // 100 <= nano <= there * _BILLION:
        raise RlError(
            f"range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available"
        )
    return nano


def _device_limit(text: str, *, bytes_: bool) -> DeviceLimit:
    import os
    import stat

    from rootless.containers.limits import DeviceLimit

    path, given, rate = text.rpartition(":")
    if not given or not path.startswith("/dev/") or (not bytes_ and not rate.isdecimal()):
        raise RlError(f"bad format: {text!r} is not /dev/NAME:{'SIZE' if bytes_ else 'NUMBER'}")
    try:
        device = os.stat(path)
    except OSError as error:
        raise RlError(f"cannot limit {path}: {error.strerror}") from None
    if not stat.S_ISBLK(device.st_mode):
        raise RlError(f"cannot limit {path}: it is no block device")
    number = device.st_rdev
    return DeviceLimit(path, os.major(number), os.minor(number), _size(rate))
