"""`rl info`: what this machine offers, and for each thing missing, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings
from rootless.files import read_text

if TYPE_CHECKING:
    from pathlib import Path


# Their servers know nothing of a user's namespace.
_WITHOUT_SUBORDINATE_IDS: Final = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "afs")


@click.command(cls=FlagCommand)
@click.option("-f", "--format", "template", metavar="FORMAT", help='"json" or a Go template.')
@pass_settings
def info(settings: Settings, template: str | None) -> None:
    """Tell what this machine offers, and what it lacks."""
    from rootless.cli.text import printable

    warnings: list[str] = []
    value = {
        **_stores(settings.root, warnings),
        **_host(settings.root, warnings),
        **_user(warnings),
        **_network(warnings),
        **_cgroups(warnings),
        "Warnings": warnings,
    }
    if template:
        from rootless.cli.template import Template

        click.echo(Template("{{json .}}" if template == "json" else template).render(value))
        return
    for name, part in value.items():
        text = (", ".join(part) or "none") if isinstance(part, list) else str(part)
        if part is not warnings:
            click.echo(f"{name}: {printable(text)}")
    for warning in warnings:
        click.echo(f"WARNING: {printable(warning)}")


def _stores(root: Path, warnings: list[str]) -> dict[str, Any]:
    from rootless import __version__
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError
    from rootless.images import registries
    from rootless.images.store import ImageStore

    containers = ContainerStore(root).list()
    running = sum(container.state.status == "running" for container in containers)
    paused = sum(container.paused for container in containers)
    files: set[str] = set()
    try:
        files.update(str(registry.file) for registry in registries.load())
    except RlError as error:
        warnings.append(str(error))
    return {
        "ServerVersion": __version__,
        "DockerRootDir": str(root),
        "Driver": "fuse-overlay",
        "Containers": len(containers),
        "ContainersRunning": running - paused,
        "ContainersPaused": paused,
        "ContainersStopped": len(containers) - running,
        "Images": len(ImageStore(root).images()),
        "RegistriesConf": sorted(files),
    }


def _host(root: Path, warnings: list[str]) -> dict[str, Any]:
    import os
    import platform

    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        system = "Linux"
    kind = file_system(str(root), read_text("/proc/self/mountinfo"))
    if kind in _WITHOUT_SUBORDINATE_IDS:
        warnings.append(
            f"{root} is on {kind}, where files cannot belong to subordinate ids "
            "(choose a directory on a local disk with --root or RL_ROOT)"
        )
    return {
        "Name": platform.node(),
        "KernelVersion": os.uname().release,
        "OperatingSystem": system,
        "OSType": "linux",
        "Architecture": os.uname().machine,
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "RootDirFilesystem": kind,
    }


def _user(warnings: list[str]) -> dict[str, Any]:
    import os
    import shutil

    from rootless.errors import RlError
    from rootless.kernel import userns

    uid = os.getuid()
    name = userns.user_name(uid)
    fuse = namespaces = "works"
    try:
        userns.user_maps()
        # Nothing says it as surely as making one, maps included.
        userns.call(os.getuid)
    except RlError as error:
        namespaces = "fails"
        warnings.append(str(error))
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        fuse = "fails"
        cure = "modprobe fuse" if isinstance(error, FileNotFoundError) else "chmod 666 /dev/fuse"
        warnings.append(
            f"cannot open /dev/fuse: {error.strerror} (ask the administrator for: {cure})"
        )
    return {
        "User": f"{name} ({uid})",
        "SecurityOptions": [*_seccomp(warnings), "name=rootless"],
        "SubUIDs": _ranges(read_text("/etc/subuid"), name, uid),
        "SubGIDs": _ranges(read_text("/etc/subgid"), name, uid),
        "UIDMapProgram": shutil.which("newuidmap") or "missing",
        "GIDMapProgram": shutil.which("newgidmap") or "missing",
        "UserNamespaces": namespaces,
        "Fuse": fuse,
    }


def _seccomp(warnings: list[str]) -> list[str]:
    from rootless.errors import RlError
    from rootless.kernel import seccomp

    try:
        seccomp.library_version()
    except RlError as error:
        warnings.append(str(error))
        return []
    if not seccomp.is_available():
        warnings.append(
            "cannot filter system calls: the kernel has no seccomp "
            "(--security-opt seccomp=unconfined runs a container without)"
        )
        return []
    return ["name=seccomp,profile=builtin"]


def _network(warnings: list[str]) -> dict[str, Any]:
    from rootless.networks import mode

    default, warning = mode.choose(None)
    if warning:
        warnings.append(warning)
    return {
        "DefaultNetwork": str(default),
        "Pasta": mode.find("pasta") or "missing",
        "Slirp4netns": mode.find("slirp4netns") or "missing",
    }


def _cgroups(warnings: list[str]) -> dict[str, Any]:
    """Tell which way limits are set, which there are, and why there are no others."""
    import os

    from rootless.cgroups import delegation, place
    from rootless.errors import RlError

    way = place.find()
    try:
        found = delegation.controllers(way)
    except RlError as error:
        way, found = place.Way("none", reason=str(error)), frozenset()
    if missing := delegation.explain(way, found):
        warnings.append(missing)
    version = "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1"
    driver = {"delegated": "cgroupfs", "systemd": "systemd", "none": "none"}[way.kind]
    return {
        "CgroupVersion": version,
        "CgroupDriver": driver,
        "CgroupParent": delegation.parent(way),
        "CgroupControllers": sorted(found),
        "MemoryLimit": "memory" in found,
        "SwapLimit": "memory" in found,
        "CpuCfsQuota": "cpu" in found,
        "CpuCfsPeriod": "cpu" in found,
        "CPUShares": "cpu" in found,
        "CPUSet": "cpuset" in found,
        "PidsLimit": "pids" in found,
    }


def _ranges(text: str, name: str, uid: int) -> list[str]:
    from rootless.kernel.userns import parse_ranges

    return [f"{first}:{count}" for first, count in parse_ranges(text, name, uid)]


def file_system(path: str, mountinfo: str) -> str:
    """Return the type of the file system that ``path`` is on, by mountinfo, proc(5)."""
    best, kind = -1, "unknown"
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        # A blank and its like are written as octal escapes; such a mount point is not ours to know.
        point = mount.split(" ")[4].rstrip("/")
        if (path == point or path.startswith(f"{point}/")) and len(point) >= best:
            best, kind = len(point), rest.split(" ")[0]
    return kind
