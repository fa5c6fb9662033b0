"""Making a container: everything on disk, nothing running yet.

Called by the supervisor that is going to run it (``launch``), and by `rl create`, with a request
and an image that is in the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rootless.containers import annotation, confinement, devices, disk, identity, names, namespaces
from rootless.containers.announce import announce
from rootless.containers.request import Request
from rootless.containers.seccomp import filters, program
from rootless.containers.sources import find_sources
from rootless.containers.spec import Place, build
from rootless.containers.state import Process, State, now, write_state
from rootless.containers.store import Container, ContainerStore, name_in_use
from rootless.errors import RlError
from rootless.files import replace_file, sync_directory
from rootless.images import usage
from rootless.images.platform import Platform
from rootless.images.store import Image, ImageStore
from rootless.kernel import process
from rootless.naming import valid_name
from rootless.networks import etc
from rootless.networks.mode import Mode
from rootless.networks.request import NetworkRequest
from rootless.volumes.store import VolumeStore

if TYPE_CHECKING:
    from rootless.containers.joining import Others

# Where Podman's packages put what its containers start with.
_PODMAN: Final = ":/usr/libexec/podman:/usr/lib/podman"
# As high as Docker goes: programs that close every possible descriptor stay quick.
_NOFILE_CEILING = 1048576


def create(
    root: Path, request: Request, image: Image, supervisor: Process | None = None
) -> Container:
    """Make a container of ``image``; RlError where the request cannot be met.

    ``supervisor`` is the process that is going to run it: if it dies, so does the
    container.
    """
    containers = ContainerStore(root)
    volumes = VolumeStore(root)
    request = request._replace(disk=request.disk.or_else(disk.default()))
    if request.net.networks:
        from rootless.containers import connections

        request = connections.resolved(root, request)
    sources = find_sources(root, request, image.config.volumes)
    others: Others | None = None
    joined = annotation.joined(request.network, request.namespaces._asdict())
    if joined:
        from rootless.containers import joining

        request, others = joining.resolve(containers, request)
    container_id = os.urandom(32).hex()
    mode = Mode.parse(request.network)
    for helper in (mode.name, *(others.programs if others else ())):
        namespaces.check_network(
            helper, request.namespaces.shared, [source for _, source in sources.mounts]
        )
    connected = others.connected if others else mode.helper
    shared = mode.name == "host"
    isolation = request.isolation
    host_name = shared or "uts" in request.namespaces.shared
    hostname = request.hostname or (others.hostname if others else None)
    hostname = hostname or (socket.gethostname() if host_name else container_id[:12])
    images = ImageStore(root)
    draft = root / "tmp" / f"container-{container_id}"
    # While the store is held, no sweep takes the layers of this image or the draft away.
    with images.shared(), _identity(root, request, image, others) as ids:
        draft.mkdir(mode=0o700, parents=True)
        try:
            seccomp = filters.wanted(
                isolation, confinement.capabilities(isolation, connected=connected)
            )
            spec = build(
                request,
                image.id,
                image.config,
                Place(
                    bundle=str(containers.path(container_id)),
                    maps=ids.maps,
                    hostname=_checked_hostname(hostname),
                    init_program=_init_program() if request.init else None,
                    nofile=_nofile(),
                    devices=devices.host_devices() if isolation.privileged else (),
                    seccomp=seccomp,
                    joined=joined,
                    connected=connected,
                    nodes=devices.find(request.devices),
                    host_mqueue=os.path.isdir("/dev/mqueue"),
                    user=ids.user,
                    accounts=ids.accounts,
                ),
                sources.mounts,
                sources.anonymous,
            )
            top = images.layer_path(image.layers[-1]) if image.layers else draft
            _fill(draft, top)
            _write_etc(draft, hostname, mode, request.net)
            if seccomp is not None:
                program.store(draft, filters.compiled(root, seccomp))
            replace_file(draft / "config.json", json.dumps(spec).encode())
            with containers.locked():
                if request.net.networks:
                    connections.check_there(root, request)
                taken = containers.names()
                name = _checked_name(request.name, taken) or names.generate(taken)
                for name_of_volume, labels, limit in sources.volumes():
                    if volumes.create(name_of_volume, labels, limit):
                        identity.give_volume(volumes.path(name_of_volume), ids.maps)
                write_state(draft, State(name=name, created_at=now(), supervisor=supervisor))
                sync_directory(draft)
                container = containers.add(draft, container_id)
        except BaseException:
            import shutil

            shutil.rmtree(draft, ignore_errors=True)
            raise
    usage.mark_used(images, image)
    announce(container, "create")
    return container


def warnings(root: Path, request: Request, image: Image) -> list[str]:
    """Return what a person ought to know of a container that is made all the same."""
    found = []
    host = Platform.host()
    if image.config.platform not in host.runs():
        found.append(f"the image is for {image.config.platform}, this machine is {host}")
    if request.limits is not None and request.limits.cgroups == "disabled":
        from rootless.containers.limits import resources

        if resources(request.limits):
            found.append("--cgroups=disabled: the container runs without its limits")
    if request.net.networks and (request.net.published or request.net.publish_all):
        from rootless.containers import connections

        if connections.internal_only(root, request):
            found.append("ports are not published: all networks are internal")
    return found


def _identity(
    root: Path, request: Request, image: Image, others: Others | None
) -> contextlib.AbstractContextManager[identity.Identity]:
    if others is not None:
        return contextlib.nullcontext(identity.Identity(others.maps))
    return identity.choose(root, request, image.config.user)


def _fill(draft: Path, top_layer: Path) -> None:
    for name in ("upper", "work", "merged"):
        (draft / name).mkdir()
    # The upper directory is what "/" shows its mode from.
    (draft / "upper").chmod(top_layer.stat().st_mode & 0o7777)


def _write_etc(draft: Path, hostname: str, mode: Mode, net: NetworkRequest) -> None:
    etc_files = {
        "hosts": etc.hosts(mode, hostname, net),
        "hostname": f"{hostname}\n",
        "resolv.conf": etc.resolv_conf(mode, net),
    }
    for name, text in etc_files.items():
        (draft / name).write_text(text, encoding="utf-8")
        (draft / name).chmod(0o644)


def check_name(name: str) -> None:
    """Raise RlError for what cannot name a container."""
    if not valid_name(name):
        raise RlError(
            f"invalid container name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )


def _checked_name(name: str | None, taken: dict[str, str]) -> str | None:
    if name is None:
        return None
    check_name(name)
    if name in taken:
        raise name_in_use(name, taken[name])
    return name


def _checked_hostname(name: str) -> str:
    # hostname(7); 64 is the kernel's own limit.
    labels = name.split(".")
    if len(name) > 64 or not all(
        label and label.replace("-", "a").replace("_", "a").isalnum() and label.isascii()
        for label in labels
    ):
        raise RlError(f"invalid hostname {name!r}: letters, digits, '-' and '.', at most 64")
    return name


def _init_program() -> str:
    # Static programs made for this: they run in any image.
    for name in ("catatonit", "docker-init", "tini-static"):
        if path := process.find_program(name, os.environ.get("PATH", os.defpath) + _PODMAN):
            return path
    raise RlError("--init needs catatonit or tini-static (Debian, Ubuntu, Fedora: catatonit)")


def _nofile() -> tuple[int, int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > _NOFILE_CEILING:
        hard = _NOFILE_CEILING
    return min(soft, hard) if soft != resource.RLIM_INFINITY else hard, hard
