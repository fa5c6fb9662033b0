"""What the shell's completion offers for the names of images, containers, volumes and networks.

Read when a key is pressed: what cannot be read is not offered, and never an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rootless.errors import RlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MODES: Final = ("bridge", "host", "none", "pasta", "private", "slirp4netns")


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of images that begin so."""
    return _offered(ctx, incomplete, _image_names)


def containers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of containers that begin so."""
    return _offered(ctx, incomplete, _container_names)


def running(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of containers that run and begin so."""
    return _offered(ctx, incomplete, _running_names)


def volumes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of volumes that begin so."""
    return _offered(ctx, incomplete, _volume_names)


def networks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of user networks that begin so."""
    return _offered(ctx, incomplete, _network_names)


def modes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what --network takes that begins so."""
    known = [name for name in _MODES if name.startswith(incomplete)]
    return known + networks(ctx, param, incomplete)


def both(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of containers and images that begin so."""
    return containers(ctx, param, incomplete) + images(ctx, param, incomplete)


def _offered(ctx: click.Context, incomplete: str, names: Callable[[Path], list[str]]) -> list[str]:
    from rootless.paths import state_root

    try:
        # The group's own function, which would fill Settings, does not run in a completion.
        root = state_root(ctx.find_root().params.get("root"))
        return [name for name in names(root) if name.startswith(incomplete)]
    except (RlError, OSError):
        return []


def _image_names(root: Path) -> list[str]:
    from rootless.images.reference import Reference
    from rootless.images.store import ImageStore

    found = [Reference.parse(name) for image in ImageStore(root).images() for name in image.names]
    tagged = [reference for reference in found if reference.tag]
    # `alpine` is enough for alpine:latest.
    short = {reference.familiar_name for reference in tagged if reference.tag == "latest"}
    return sorted(short.union(reference.familiar for reference in tagged))


def _container_names(root: Path) -> list[str]:
    from rootless.containers.store import ContainerStore

    return sorted(container.name for container in ContainerStore(root).list())


def _running_names(root: Path) -> list[str]:
    from rootless.containers.store import ContainerStore

    return sorted(container.name for container in ContainerStore(root).list() if container.active)


def _volume_names(root: Path) -> list[str]:
    from rootless.volumes.store import VolumeStore

    return [volume.name for volume in VolumeStore(root).list()]


def _network_names(root: Path) -> list[str]:
    from rootless.networks.definitions import Definitions

    return Definitions(root).names()
