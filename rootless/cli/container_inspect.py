"""Containers as `rl inspect` shows them, in Docker's field names.

Pure: from a store's Container to a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rootless.cli import network_view
from rootless.cli.container_view import mounts_of, policy_of, shown_status
from rootless.cli.template import Map
from rootless.cli.template.values import Struct
from rootless.containers.annotation import STOP_SIGNAL
from rootless.containers.store import Container

if TYPE_CHECKING:
    from rootless.containers.limits import DeviceLimit


# What Go prints for a time that has not come.
_NEVER: Final = "0001-01-01T00:00:00Z"


def inspect(container: Container) -> dict[str, Any]:
    """Return everything about a container, shaped as `docker inspect` prints it."""
    from rootless.containers import log

    spec, extra = container.config, container.extra
    process = spec["process"]
    return {
        "Id": container.id,
        "Created": container.created,
        "Path": process["args"][0],
        "Args": process["args"][1:],
        "State": _state(container),
        "Image": extra.image_id,
        "ResolvConfPath": str(container.path / "resolv.conf"),
        "HostnamePath": str(container.path / "hostname"),
        "HostsPath": str(container.path / "hosts"),
        "LogPath": str(log.path(container.path)) if _keeps_log(container) else "",
        "Name": f"/{container.name}",
        "RestartCount": container.state.restarts,
        "Driver": "fuse-overlay",
        "Platform": "linux",
        "AppArmorProfile": "",
        "HostConfig": _host_config(container),
        "GraphDriver": _graph_driver(container),
        "Mounts": list(mounts_of(container)),
        "Config": Struct(
            {
                "Hostname": spec["hostname"],
                "Domainname": "",
                "User": process["user"].get("username", ""),
                "AttachStdin": extra.request["interactive"],
                "AttachStdout": True,
                "AttachStderr": True,
                "ExposedPorts": Map({name: {} for name in extra.exposed}),
                "Tty": process["terminal"],
                "OpenStdin": extra.request["interactive"],
                "StdinOnce": extra.request["interactive"],
                "Env": process["env"],
                "Cmd": list(extra.command),
                "Image": extra.image,
                "Volumes": Map({target: {} for target in extra.volumes}),
                "WorkingDir": process["cwd"],
                "Entrypoint": list(extra.entrypoint),
                "Labels": Map(extra.labels),
                "StopSignal": spec["annotations"].get(STOP_SIGNAL, "SIGTERM"),
                "StopTimeout": extra.request.get("stop_timeout"),
                **({"Healthcheck": extra.healthcheck} if extra.healthcheck else {}),
            },
            "Healthcheck",
        ),
        "NetworkSettings": network_view.settings(container),
    }


def _keeps_log(container: Container) -> bool:
    return bool(container.extra.request.get("log_driver", "json-file") == "json-file")


def _state(container: Container) -> dict[str, Any]:
    state = container.state
    running = state.status == "running"
    shown = {
        "Status": shown_status(container),
        # As Docker: also while it waits to be restarted.
        "Running": running or state.status == "restarting",
        "Paused": container.paused,
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.init.pid if running and state.init else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at or _NEVER,
        "FinishedAt": state.finished_at or _NEVER,
        **({"Health": dict(container.health)} if container.health else {}),
    }
    return Struct(shown, "Health")


def _host_config(container: Container) -> dict[str, Any]:
    from rootless import quota
    from rootless.containers import disk

    spec, request = container.config, container.extra.request
    policy = policy_of(container)
    isolation = request.get("isolation", {})
    return {
        "Binds": [
            f"{mount['Name'] if mount['Type'] == 'volume' else mount['Source']}"
            f":{mount['Destination']}:{'rw' if mount['RW'] else 'ro'}"
            for mount in mounts_of(container)
            if mount["Type"] != "tmpfs"
        ],
        "LogConfig": {
            "Type": request.get("log_driver", "json-file"),
            "Config": Map(request.get("log_options", {})),
        },
        **network_view.host_config(container),
        "RestartPolicy": {"Name": policy.name, "MaximumRetryCount": policy.limit},
        "AutoRemove": request["auto_remove"],
        "CapAdd": isolation.get("cap_add", []),
        "CapDrop": isolation.get("cap_drop", []),
        "VolumeDriver": "",
        "VolumesFrom": list(request.get("volumes_from", ())) or None,
        **_namespaces(request.get("namespaces", {})),
        "Devices": [
            {
                "PathOnHost": device["source"],
                "PathInContainer": device["target"],
                "CgroupPermissions": device["permissions"],
            }
            for device in request.get("devices", ())
        ],
        "GroupAdd": list(request.get("group_add", ())) or None,
        "Init": request["init"],
        "Privileged": isolation.get("privileged", False),
        "ReadonlyRootfs": spec["root"]["readonly"],
        "StorageOpt": Map(quota.describe(disk.of(container))),
        "SecurityOpt": isolation.get("security_opt", []),
        "Tmpfs": Map(
            {
                mount["target"]: ",".join(mount["options"])
                for mount in request["mounts"]
                if mount["kind"] == "tmpfs"
            }
        ),
        **_limits(container),
        "MaskedPaths": spec["linux"]["maskedPaths"],
        "ReadonlyPaths": spec["linux"]["readonlyPaths"],
    }


def _limits(container: Container) -> dict[str, Any]:
    from rootless.containers import cgroup

    limits = cgroup.limits_of(container)
    swap = limits.memory_swap or (2 * limits.memory if limits.memory > 0 else 0)

    def devices(found: Sequence[DeviceLimit]) -> list[dict[str, Any]]:
        return [{"Path": one.path, "Rate": one.rate} for one in found]

    return {
        "Memory": limits.memory,
        "MemorySwap": swap,
        "MemoryReservation": limits.memory_reservation,
        "MemoryHigh": limits.memory_high,
        "NanoCpus": limits.nano_cpus,
        "CpuShares": limits.cpu_shares,
        "CpuQuota": limits.cpu_quota,
        "CpuPeriod": limits.cpu_period,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "PidsLimit": limits.pids_limit,
        "BlkioWeight": limits.blkio_weight,
        "BlkioDeviceReadBps": devices(limits.device_read_bps),
        "BlkioDeviceWriteBps": devices(limits.device_write_bps),
        "BlkioDeviceReadIOps": devices(limits.device_read_iops),
        "BlkioDeviceWriteIOps": devices(limits.device_write_iops),
        "OomScoreAdj": limits.oom_score_adj or 0,
        "Cgroup": limits.cgroups,
        "CgroupParent": limits.cgroup_parent,
        "CgroupnsMode": limits.cgroupns,
    }


def _namespaces(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "IpcMode": wanted.get("ipc") or "private",
        "PidMode": wanted.get("pid", ""),
        "UTSMode": wanted.get("uts", ""),
        "UsernsMode": wanted.get("userns", ""),
        "ShmSize": wanted.get("shm_size") or 64 << 20,
        "Sysctls": Map(wanted.get("sysctls", {})),
        "Ulimits": [
            {"Name": limit["name"], "Hard": limit["hard"], "Soft": limit["soft"]}
            for limit in wanted.get("ulimits", ())
        ],
    }


def _graph_driver(container: Container) -> dict[str, Any]:
    layers = container.path.parent.parent / "layers"
    lower = [str(layers / diff_id.removeprefix("sha256:")) for diff_id in container.extra.layers]
    return {
        "Name": "fuse-overlay",
        "Data": Map(
            LowerDir=":".join(reversed(lower)),
            MergedDir=str(container.path / "merged"),
            UpperDir=str(container.path / "upper"),
            WorkDir=str(container.path / "work"),
        ),
    }
