"""What the shell's completion offers for the names of images, containers and volumes.

Read when a key is pressed: what cannot be read is not offered, and never an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rootless.errors import RlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
