"""The OCI runtime specification of a container, computed from what was asked and from its image.

Owns every default that a container gets (Docker's, unless a comment says
otherwise). Pure: the result is the config.json that init carries out.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rootless.containers import confinement, health, surroundings
from rootless.containers.annotation import ANNOTATION, STOP_SIGNAL, Extra, Spec
from rootless.containers.devices import Node
from rootless.containers.request import Mount, Request
from rootless.containers.surroundings import INIT_PATH
from rootless.errors import RlError
from rootless.images.manifest import ImageConfig
from rootless.kernel.userns import IdMap, Maps
from rootless.networks.mode import Mode
from rootless.networks.ports import parse_exposed, publish_all
from rootless.networks.request import NetworkRequest
from rootless.values import as_dict

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NO_DEVICES: Final = ["nosuid", "noexec", "nodev"]
_PROC: Final = {
    "destination": "/proc",
    "type": "proc",
    "source": "proc",
    "options": _NO_DEVICES,
}
_TTY_GROUP: Final = 5
_DEV: Final = [
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": [
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            f"gid={_TTY_GROUP}",
        ],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": [*_NO_DEVICES, "mode=1777", "size=65536k"],
    },
    {
        "destination": "/dev/mqueue",
        "type": "mqueue",
        "source": "mqueue",
        "options": _NO_DEVICES,
    },
]
_SYS: Final = {
    "destination": "/sys",
    "type": "sysfs",
    "source": "sysfs",
    "options": [*_NO_DEVICES, "ro"],
}
# sysfs belongs to a network namespace: with the host's, only the host's own mount is to be had.
_HOST_SYS: Final = {
    "destination": "/sys",
    "type": "bind",
    "source": "/sys",
    "options": ["rbind", *_NO_DEVICES, "ro"],
}
_HOST_CGROUP: Final = {
    "destination": "/sys/fs/cgroup",
    "type": "bind",
    "source": "/sys/fs/cgroup",
    "options": ["rbind", *_NO_DEVICES, "ro"],
}
_CGROUP: Final = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": [*_NO_DEVICES, "ro"],
}
# Docker's too: what a namespace of one's own makes harmless.
_NETWORK_SYSCTL: Final = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 65535",
}


class Place(NamedTuple):
    """Where a container stands: its directory, its maps and the files made for it on the host."""

    bundle: str
    maps: Maps
    hostname: str
    init_program: str | None
    nofile: tuple[int, int]
    devices: Sequence[str] = ()
    nodes: Sequence[Node] = ()
    host_mqueue: bool = True
    user: str = ""
    accounts: Mapping[str, str] = {}
    seccomp: Mapping[str, Any] | None = None
    joined: Collection[str] = ()
    """The types of the namespaces that are another container's."""
    connected: bool = False
    """Whether that one's network is connected by a program of ours."""


def build(
    request: Request,
    image_id: str,
    image: ImageConfig,
    place: Place,
    mounts: Iterable[tuple[Mount, str]],
    anonymous_volumes: Collection[str] = (),
) -> Spec:
    """Return the config.json of a container.

    ``mounts`` pairs each mount with its source on the host ("" for a tmpfs);
    volumes have names by now, those of ``anonymous_volumes`` made up ones.
    RlError where request and image do not make a container together.
    """
    mounts = list(mounts)
    entrypoint, command = _command(request, image)
    volumes = [mount for mount, _ in mounts if mount.kind == "volume"]
    extra = Extra(
        image=request.image,
        image_id=image_id,
        layers=tuple(image.diff_ids),
        request=as_dict(request),
        volumes={mount.target: mount.source for mount in volumes},
        anonymous_volumes=tuple(anonymous_volumes),
        filled_volumes=tuple(
            mount.target for mount in volumes if "nocopy" not in mount.options and not mount.subpath
        ),
        subpaths={mount.target: mount.subpath for mount in volumes if mount.subpath},
        binds=tuple(mount.target for mount, _ in mounts if mount.kind == "bind"),
        given=tuple(mount.target for mount, _ in mounts if "U" in mount.options),
        entrypoint=entrypoint,
        command=command,
        labels={**image.labels, **request.labels},
        accounts=place.accounts,
        healthcheck=health.merged(image.healthcheck, request.health),
        **_ports(request.net, image),
    )
    annotations = {ANNOTATION: json.dumps(as_dict(extra))}
    if stop_signal := request.stop_signal or image.stop_signal:
        annotations[STOP_SIGNAL] = stop_signal
    own_network = Mode.parse(request.network).own_namespace
    return {
        "ociVersion": "1.0.2",
        "process": _process(request, image, place, entrypoint + command),
        "root": {"path": f"{place.bundle}/merged", "readonly": request.read_only},
        "hostname": place.hostname,
        "mounts": _mounts(request, place, mounts),
        "annotations": annotations,
        "linux": {
            "uidMappings": [_mapping(entry) for entry in place.maps.uids],
            "gidMappings": [_mapping(entry) for entry in place.maps.gids],
            "namespaces": [
                {"type": name}
                for name in surroundings.own_namespaces(request.namespaces, place.joined)
                + ([] if _host_cgroups(request) else ["cgroup"])
                + (["network"] if own_network else [])
            ],
            "sysctl": {**(_NETWORK_SYSCTL if own_network else {}), **request.namespaces.sysctls},
            **surroundings.devices(place.nodes),
            **_resources(request),
            "maskedPaths": confinement.masked_paths(request.isolation),
            "readonlyPaths": confinement.readonly_paths(request.isolation),
            **({"seccomp": place.seccomp} if place.seccomp else {}),
        },
    }


def _ports(wanted: NetworkRequest, image: ImageConfig) -> dict[str, Any]:
    """Return what the annotation says of ports: those to publish, and the names of all exposed."""
    exposed = parse_exposed(image.exposed_ports)
    exposed |= {(port.container, port.protocol) for port in wanted.exposed}
    published = list(wanted.published)
    if wanted.publish_all:
        published = publish_all(exposed, published)
    exposed |= {(port.container, port.protocol) for port in published}
    return {
        "ports": tuple(as_dict(port) for port in published),
        "exposed": tuple(sorted(f"{number}/{protocol}" for number, protocol in exposed)),
    }


def _host_cgroups(request: Request) -> bool:
    return request.limits is not None and request.limits.cgroupns == "host"


def _resources(request: Request) -> dict[str, Any]:
    if request.limits is None:
        return {}
    from rootless.containers.limits import resources

    found = resources(request.limits)
    return {"resources": found} if found else {}


def _mapping(entry: IdMap) -> dict[str, int]:
    return {"containerID": entry.inside, "hostID": entry.outside, "size": entry.size}


def _command(request: Request, image: ImageConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (entrypoint, command); an entrypoint from the command line drops the image's Cmd."""
    if request.entrypoint is None:
        entrypoint, command = tuple(image.entrypoint), request.command or tuple(image.cmd)
    else:
        entrypoint = _entrypoint(request.entrypoint)
        command = request.command
    if not entrypoint + command:
        raise RlError(
            f"no command specified: the image {request.image} has no default command, so add one"
        )
    return entrypoint, command


def _entrypoint(text: str) -> tuple[str, ...]:
    """Read --entrypoint: a program, or as in Podman a JSON list of it and its arguments."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return tuple(words)
    return (text,) if text else ()


def _process(
    request: Request, image: ImageConfig, place: Place, args: tuple[str, ...]
) -> dict[str, Any]:
    if request.init:
        args = (INIT_PATH, "--", *args)
    cwd = request.workdir or posixpath.join("/", image.working_dir)
    if not cwd.startswith("/"):
        raise RlError(f"the working directory {cwd!r} is invalid: it must be an absolute path")
    capabilities = confinement.capabilities(
        request.isolation, connected=place.connected or Mode.parse(request.network).helper
    )
    return {
        "terminal": request.terminal,
        "user": surroundings.user(
            request.user or place.user or image.user, request.umask, request.group_add
        ),
        "args": list(args),
        "env": _environment(request, image, place),
        "cwd": posixpath.normpath(cwd),
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
        },
        "rlimits": surroundings.rlimits(request.namespaces, place.nofile),
        "noNewPrivileges": request.isolation.no_new_privileges,
        **_oom_score(request),
    }


def _oom_score(request: Request) -> dict[str, int]:
    score = request.limits.oom_score_adj if request.limits is not None else None
    return {} if score is None else {"oomScoreAdj": score}


def _environment(request: Request, image: ImageConfig, place: Place) -> list[str]:
    defaults = [_PATH, f"HOSTNAME={place.hostname}"]
    if request.terminal:
        defaults.append("TERM=xterm")
    merged: dict[str, str] = {}
    for item in (*defaults, *image.env, *request.env):
        name, _, value = item.partition("=")
        if name:
            merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def _mounts(request: Request, place: Place, asked: list[tuple[Mount, str]]) -> list[dict[str, Any]]:
    """Return all mounts, parents before children; what was asked for replaces a default."""
    isolation = request.isolation
    proc = {**_PROC, "options": [*_NO_DEVICES, *isolation.proc_options]}
    system = [
        _SYS if request.network != "host" else _HOST_SYS,
        _HOST_CGROUP if _host_cgroups(request) else _CGROUP,
    ]
    writable = confinement.writable_system(isolation)
    system = [
        _made_writable(mount) if mount["destination"] in writable else mount for mount in system
    ]
    defaults = [proc, *(_mountable(mount, place.maps) for mount in _DEV), *system]
    defaults = surroundings.mounts(defaults, request.namespaces, place.host_mqueue, place.joined)
    pairs = {path: path for path in place.devices} | {
        node.target: node.source for node in place.nodes
    }
    defaults += [
        _bind(source, target, ("bind", "nosuid", "noexec")) for target, source in pairs.items()
    ]
    defaults += [
        _bind(f"{place.bundle}/{name}", f"/etc/{name}", ("rbind",))
        for name in ("hosts", "hostname", "resolv.conf")
    ]
    if place.init_program:
        defaults.append(_bind(place.init_program, INIT_PATH, ("bind", "ro")))
    by_target = {mount["destination"]: mount for mount in defaults}
    targets: set[str] = set()
    for mount, source in asked:
        if mount.target in targets:
            raise RlError(f"duplicate mount point: {mount.target}")
        targets.add(mount.target)
        by_target[mount.target] = (
            _tmpfs(mount) if mount.kind == "tmpfs" else _bind(source, mount.target, mount.options)
        )
    # The sort is stable: among mounts of one depth the order above stays.
    return sorted(by_target.values(), key=lambda mount: mount["destination"].count("/"))


def _mountable(mount: dict[str, Any], maps: Maps) -> dict[str, Any]:
    """Return a mount without the terminals' group where the container has no such group."""
    if any(entry.inside <= _TTY_GROUP < entry.inside + entry.size for entry in maps.gids):
        return mount
    return {
        **mount,
        "options": [option for option in mount["options"] if option != f"gid={_TTY_GROUP}"],
    }


def _made_writable(mount: dict[str, Any]) -> dict[str, Any]:
    return {**mount, "options": [option for option in mount["options"] if option != "ro"]}


def _bind(source: str, target: str, options: tuple[str, ...]) -> dict[str, Any]:
    kept = [option for option in options if option not in ("nocopy", "U")]
    if not {"bind", "rbind"} & set(kept):
        kept.insert(0, "rbind")
    return {"destination": target, "type": "bind", "source": source, "options": kept}


def _tmpfs(mount: Mount) -> dict[str, Any]:
    # Docker's defaults for --tmpfs; an option given later wins over them.
    opposites = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
    dropped = {opposites[option] for option in mount.options if option in opposites}
    options = [option for option in _NO_DEVICES if option not in dropped]
    return {
        "destination": mount.target,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": [*options, *mount.options],
    }
