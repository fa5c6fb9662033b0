"""What the namespaces, limits and devices that were asked for come to in config.json.

Owns which namespaces a container has for itself and what is mounted instead of
what only its own could have. Pure. Called by spec.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from rootless.containers.devices import Node
from rootless.containers.namespaces import Namespaces

_NO_DEVICES: Final = ["nosuid", "noexec", "nodev"]
# Where --init has its program: on our own /dev, so that it leaves no trace in the layer.
INIT_PATH: Final = "/dev/init"
# What the runtime specification calls no limit.
UNLIMITED: Final = 2**64 - 1


def own_namespaces(wanted: Namespaces, joined: Collection[str]) -> list[str]:
    """Return the types of those that the container does not share, but for network and cgroup.

    A container that has any of another one has its user namespace, too.
    """
    kinds = ("user", "mount", "pid", "uts", "ipc")[1 if joined else 0 :]
    return [kind for kind in kinds if kind not in wanted.shared and kind not in joined]


def mounts(
    defaults: Iterable[dict[str, Any]],
    wanted: Namespaces,
    host_mqueue: bool,
    joined: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return the default mounts as the namespaces want them.

    /proc, /dev/mqueue and the memory in /dev/shm belong to a namespace: of the
    host's, only the host's own mount is to be had. The memory of another container
    is not mounted by its path: it is handed over as a mount (``joined``).
    """
    shared: set[str] = {"/proc"} if "pid" in wanted.shared else set()
    if "ipc" in wanted.shared:
        shared |= {"/dev/shm", "/dev/mqueue"}
    if "ipc" in joined:
        shared |= {"/dev/shm"}
    left_out = {"/dev/shm"} if wanted.ipc == "none" else set()
    if not host_mqueue:
        left_out |= shared & {"/dev/mqueue"}
    return [
        _adapted(mount, wanted, shared)
        for mount in defaults
        if mount["destination"] not in left_out
    ]


def _adapted(mount: dict[str, Any], wanted: Namespaces, shared: set[str]) -> dict[str, Any]:
    target = mount["destination"]
    if target in shared:
        options = ["rbind", *_NO_DEVICES]
        return {"destination": target, "type": "bind", "source": target, "options": options}
    if target == "/dev/shm" and wanted.shm_size:
        kept = [item for item in mount["options"] if not item.startswith("size=")]
        return {**mount, "options": [*kept, f"size={wanted.shm_size}"]}
    return mount


def rlimits(wanted: Namespaces, nofile: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the limits of each process; those on open files are the user's unless asked for."""
    limits = {"nofile": nofile} | {item.name: (item.soft, item.hard) for item in wanted.ulimits}
    return [
        {
            "type": f"RLIMIT_{name.upper()}",
            "soft": UNLIMITED if soft == -1 else soft,
            "hard": UNLIMITED if hard == -1 else hard,
        }
        for name, (soft, hard) in limits.items()
    ]


def devices(nodes: Sequence[Node]) -> dict[str, Any]:
    """Return the field for devices, if there are any."""
    if not nodes:
        return {}
    return {
        "devices": [
            {"path": node.target, "type": node.kind, "major": node.major, "minor": node.minor}
            for node in nodes
        ]
    }


def user(wanted: str, umask: int | None, groups: Sequence[str]) -> Mapping[str, Any]:
    """Return whom the process is to run as.

    Names are resolved by init in the container's own passwd and group, which only exist mounted.
    """
    found: dict[str, Any] = {"uid": 0, "gid": 0, "username": wanted}
    if umask is not None:
        found["umask"] = umask
    if groups:
        # An extension of ours, for the same reason.
        found["groups"] = list(groups)
    return found
