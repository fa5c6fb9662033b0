"""What a container uses as `rl stats` shows it, in Docker's field names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rootless.cli.output import Row
from rootless.cli.units import binary_size, size, size_of

if TYPE_CHECKING:
    from rootless.cgroups.usage import Usage
    from rootless.containers.store import Container

TITLES: Final = {
    "ID": "CONTAINER ID",
    "Container": "CONTAINER",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
    "Disk": "DISK",
    "ServersCPUPerc": "SERVERS CPU %",
    "ServersMemUsage": "SERVERS MEM",
}
COLUMNS: Final = (
    "ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs", "Disk",
    "ServersCPUPerc", "ServersMemUsage",
)  # fmt: skip

_UNKNOWN: Final = "--"


def row(
    container: Container,
    before: Usage | None,
    after: Usage | None,
    *,
    network: tuple[int, int] | None,
    disk: int | None,
    disk_limit: int | None,
    truncate: bool,
) -> Row:
    """Return one container's row; "--" is what nobody counts, as for one that does not run."""
    short = container.id[:12] if truncate else container.id
    found: Row = dict.fromkeys(TITLES, _UNKNOWN)
    found |= {"ID": short, "Container": short, "Name": container.name}
    if disk is not None:
        found["Disk"] = size_of(disk, disk_limit)
    if network is not None:
        found["NetIO"] = f"{size(network[0])} / {size(network[1])}"
    if after is None:
        return found
    if before is not None:
        seconds = after.moment - before.moment
        found["CPUPerc"] = _percent((after.cpu_usec - before.cpu_usec) / 1e6, seconds)
        servers = after.servers_cpu_usec - before.servers_cpu_usec
        found["ServersCPUPerc"] = _percent(servers / 1e6, seconds)
    if after.memory is not None:
        limit = binary_size(after.memory_limit)
        found["MemUsage"] = f"{binary_size(after.memory)} / {limit}"
        found["MemPerc"] = _percent(after.memory, after.memory_limit)
    if after.servers_memory is not None:
        found["ServersMemUsage"] = binary_size(after.servers_memory)
    if after.read_bytes is not None and after.written_bytes is not None:
        found["BlockIO"] = f"{size(after.read_bytes)} / {size(after.written_bytes)}"
    if after.pids is not None:
        found["PIDs"] = str(after.pids)
    return found


def _percent(part: float, whole: float) -> str:
    return f"{max(part, 0) / whole * 100:.2f}%" if whole > 0 else _UNKNOWN
