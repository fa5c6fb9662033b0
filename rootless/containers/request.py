"""What a person asks of a container, as values: a request and its mounts.

Owns the syntax of -v, --mount, --tmpfs and -e. Pure: reads no image, touches
no disk. Made by the command line, read by spec and by inspect.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from rootless.containers.health import Health
from rootless.containers.isolation import Isolation
from rootless.containers.namespaces import Device, Namespaces
from rootless.errors import RlError
from rootless.naming import valid_name
from rootless.networks.request import NetworkRequest
from rootless.quota import Disk

if TYPE_CHECKING:
    from rootless.containers.limits import Limits

PROPAGATIONS: Final = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_VOLUME_OPTIONS: Final = frozenset(
    "ro rw nocopy bind rbind U suid nosuid dev nodev exec noexec".split()
).union(PROPAGATIONS)
# Labels for SELinux, and what Docker asks of other systems: they mean nothing here.
_IGNORED: Final = frozenset(("z", "Z", "consistent", "cached", "delegated"))


class Mount(NamedTuple):
    """One mount asked for: ``source`` is a host path, a volume's name (or "" for a new one).

    Of a volume: its ``limit``, and what of it is mounted, where that is not all (``subpath``).
    """

    kind: Literal["bind", "volume", "tmpfs"]
    source: str
    target: str
    options: tuple[str, ...] = ()
    limit: Disk = Disk()
    subpath: str = ""

    @property
    def read_only(self) -> bool:
        """Whether the container may not write to it."""
        return "ro" in self.options


class Request(NamedTuple):
    """Everything that ``rl run`` can be told about the container it makes."""

    image: str
    command: tuple[str, ...] = ()
    name: str | None = None
    entrypoint: str | None = None
    env: tuple[str, ...] = ()
    workdir: str | None = None
    user: str | None = None
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    hostname: str | None = None
    network: str = "host"
    net: NetworkRequest = NetworkRequest()
    labels: Mapping[str, str] = {}
    terminal: bool = False
    interactive: bool = False
    read_only: bool = False
    disk: Disk = Disk()
    auto_remove: bool = False
    init: bool = False
    namespaces: Namespaces = Namespaces()
    devices: tuple[Device, ...] = ()
    group_add: tuple[str, ...] = ()
    umask: int | None = None
    isolation: Isolation = Isolation()
    stop_signal: str | None = None
    stop_timeout: int | None = None
    restart: str = "no"
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = {}
    health: Health = Health()
    limits: Limits | None = None


def parse_volume(text: str) -> Mount:
    """Read the argument of -v: ``[SOURCE:]TARGET[:OPTIONS]``, as docker run does."""
    fields = text.split(":")
    if len(fields) > 3 or not all(fields):
        raise RlError(f"invalid volume {text!r}: expected [SOURCE:]TARGET[:OPTIONS]")
    if len(fields) == 1:
        return Mount("volume", "", mount_target(fields[0], text))
    source, target = fields[0], mount_target(fields[1], text)
    options = tuple(fields[2].split(",")) if len(fields) == 3 else ()
    for option in options:
        if option == "O":
            raise RlError(f"invalid volume {text!r}: an overlay over it (O) is not here yet")
        if option not in _VOLUME_OPTIONS | _IGNORED:
            raise RlError(f"invalid volume {text!r}: unknown option {option!r}")
    options = tuple(option for option in options if option not in _IGNORED)
    if source.startswith(("/", ".", "~")):
        return Mount("bind", _host_path(os.path.expanduser(source)), target, options)
    return Mount("volume", _volume_name(source, text), target, options)


def parse_mount(text: str) -> Mount:
    """Read the argument of --mount: ``type=bind,source=…,target=…[,readonly]…``."""
    kind = "volume"
    source = target = subpath = ""
    options: list[str] = []
    of_volume: list[str] = []
    for item in _fields(text):
        key, given, value = item.partition("=")
        match key.lower():
            case "type":
                kind = value
            case "source" | "src":
                source = value
            case "target" | "destination" | "dst":
                target = value
            case "readonly" | "ro" if _truth(value, given, text):
                options.append("ro")
            case "readonly" | "ro":
                pass
            case "bind-propagation" if value in PROPAGATIONS:
                options.append(value)
            case "u" | "chown":
                options += ["U"] if _truth(value, given, text) else []
            case "consistency" | "relabel":
                pass
            case "volume-driver" if value == "local":
                pass
            case "volume-opt":
                of_volume.append(value)
            case "volume-subpath" | "subpath":
                subpath = _subpath(value, text)
            case "bind-nonrecursive":
                options += ["bind"] if _truth(value, given, text) else []
            case "volume-nocopy":
                options += ["nocopy"] if _truth(value, given, text) else []
            case "tmpfs-size":
                options.append(f"size={value}")
            case "tmpfs-mode":
                options.append(f"mode={value}")
            case _:
                raise RlError(f"invalid mount {text!r}: unknown field {item!r}")
    if not target:
        raise RlError(f"invalid mount {text!r}: target is missing")
    target = mount_target(target, text)
    if (of_volume or subpath) and kind != "volume":
        raise RlError(f"invalid mount {text!r}: volume-opt and volume-subpath are for a volume")
    if kind == "bind":
        if not source:
            raise RlError(f"invalid mount {text!r}: source is missing")
        return Mount("bind", _host_path(source), target, tuple(options))
    if kind == "volume":
        name = _volume_name(source, text) if source else ""
        if subpath and not name:
            raise RlError(f"invalid mount {text!r}: volume-subpath needs a volume with a name")
        return Mount("volume", name, target, tuple(options), _volume_limit(of_volume), subpath)
    if kind == "tmpfs":
        if source:
            raise RlError(f"invalid mount {text!r}: a tmpfs has no source")
        return Mount("tmpfs", "", target, tuple(options))
    raise RlError(f"invalid mount {text!r}: type must be bind, volume or tmpfs")


def parse_tmpfs(text: str) -> Mount:
    """Read the argument of --tmpfs: ``TARGET[:OPTIONS]``."""
    target, _, options = text.partition(":")
    return Mount("tmpfs", "", mount_target(target, text), tuple(filter(None, options.split(","))))


def parse_env(items: list[str], host: Mapping[str, str]) -> tuple[str, ...]:
    """Read -e arguments: ``NAME=VALUE``, or ``NAME`` to take the host's value if it has one."""
    found = []
    for item in items:
        name, given, _ = item.partition("=")
        if not name:
            raise RlError(f"invalid environment variable: {item!r}")
        if given:
            found.append(item)
        elif name in host:
            found.append(f"{name}={host[name]}")
    return tuple(found)


def parse_lines(path: str, what: str) -> list[str]:
    """Return the NAME=VALUE and NAME lines of a file, without comments and blank lines.

    ``what`` they are: environment or label.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RlError(f"cannot read the {what} file {path}: {why}") from None
    kept = [line.lstrip() for line in lines]
    kept = [line for line in kept if line and not line.startswith("#")]
    for line in kept:
        if any(space in line.partition("=")[0] for space in " \t"):
            raise RlError(f"invalid line in the {what} file {path}: {line!r}")
    return kept


def mount_target(path: str, text: str) -> str:
    """Return where a mount goes in the container; "/" and relative paths are refused."""
    if not path.startswith("/"):
        raise RlError(f"invalid mount {text!r}: {path!r} must be an absolute path")
    path = posixpath.normpath(path)
    path = "/" + path.lstrip("/")
    if path in ("/", "/proc"):
        raise RlError(f"invalid mount {text!r}: the target cannot be {path!r}")
    return path


def parse_volumes_from(text: str) -> tuple[str, str]:
    """Read the argument of --volumes-from, ``CONTAINER[:ro|rw]``, as the name and the mode."""
    name, _, options = text.partition(":")
    kept = [option for option in options.split(",") if option and option not in _IGNORED]
    if not name or len(kept) > 1 or not {"ro", "rw"}.issuperset(kept):
        raise RlError(f"invalid volumes-from {text!r}: expected CONTAINER[:ro|rw]")
    return name, kept[0] if kept else ""


def _fields(text: str) -> list[str]:
    """Split at commas but for those in double quotes, as CSV does."""
    if '"' not in text:
        return text.split(",")
    import csv

    return next(csv.reader([text]))


def _host_path(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise RlError(f"cannot mount {path}: the current directory was removed") from None


def _volume_name(name: str, text: str) -> str:
    if not valid_name(name):
        raise RlError(
            f"invalid mount {text!r}: {name!r} is no volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] "
            "(a host directory is written as an absolute path, or with ./)"
        )
    return name


def _volume_limit(options: list[str]) -> Disk:
    if not options:
        return Disk()
    from rootless.volumes.options import parse

    return parse(options)


def _subpath(path: str, text: str) -> str:
    """Return what of a volume is meant; "" is all of it."""
    if path.startswith("/") or ".." in path.split("/"):
        raise RlError(f"invalid mount {text!r}: {path!r} must be a path inside the volume")
    return posixpath.normpath(path) if path not in ("", ".") else ""


def _truth(value: str, given: str, text: str) -> bool:
    if not given or value.lower() in ("true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise RlError(f"invalid mount {text!r}: {value!r} is neither true nor false")
