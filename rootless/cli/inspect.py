"""`rl inspect`, and `inspect` of containers, images, volumes and networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

_KINDS: Final = ("container", "image", "volume", "network")

_format = click.option("-f", "--format", "template", metavar="FORMAT", help='"json" or a template.')
_size = click.option("-s", "--size", is_flag=True, help="With the sizes of containers.")


@click.command(cls=FlagCommand)
@_format
@_size
@click.option("--type", "kind", type=click.Choice(_KINDS), help="Look for these.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.both)
@pass_settings
def inspect(
    settings: Settings, template: str | None, size: bool, kind: str | None, names: tuple[str, ...]
) -> int:
    """Show all about containers, images, volumes and networks."""
    return _inspect(settings, [kind] if kind else _KINDS, names, template, size=size)


@click.command("inspect", cls=FlagCommand)
@_format
@_size
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.containers
)
@pass_settings
def inspect_container(
    settings: Settings, template: str | None, size: bool, names: tuple[str, ...]
) -> int:
    """Show all about containers."""
    return _inspect(settings, ["container"], names, template, size=size)


@click.command("inspect", cls=FlagCommand)
@_format
@click.argument(
    "names", metavar="IMAGE...", nargs=-1, required=True, shell_complete=complete.images
)
@pass_settings
def inspect_image(settings: Settings, template: str | None, names: tuple[str, ...]) -> int:
    """Show all about images."""
    return _inspect(settings, ["image"], names, template)


@click.command("inspect", cls=FlagCommand)
@_format
@click.argument(
    "names", metavar="VOLUME...", nargs=-1, required=True, shell_complete=complete.volumes
)
@pass_settings
def inspect_volume(settings: Settings, template: str | None, names: tuple[str, ...]) -> int:
    """Show all about volumes."""
    return _inspect(settings, ["volume"], names, template)


@click.command("inspect", cls=FlagCommand)
@_format
@click.argument(
    "names", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete.networks
)
@pass_settings
def inspect_network(settings: Settings, template: str | None, names: tuple[str, ...]) -> int:
    """Show all about networks."""
    return _inspect(settings, ["network"], names, template)


def _inspect(
    settings: Settings,
    kinds: Sequence[str],
    names: tuple[str, ...],
    template: str | None,
    *,
    size: bool = False,
) -> int:
    """Print what is found, then complain about what is not, as Docker does."""
    import json

    from rootless.cli.report import for_each
    from rootless.cli.template import Template

    root = settings.root
    # Parsed first: a mistake in it is one, however many names follow.
    parsed = Template(template) if template and template != "json" else None
    found: list[dict[str, Any]] = []
    status = for_each(names, lambda name: found.append(_look_up(root, kinds, name, size=size)))
    if parsed:
        for value in found:
            click.echo(parsed.render(value))
    elif template:
        click.echo(json.dumps(found, ensure_ascii=False, separators=(",", ":")))
    else:
        click.echo(json.dumps(found, ensure_ascii=False, indent=4))
    return status


def _look_up(root: Path, kinds: Sequence[str], name: str, *, size: bool) -> dict[str, Any]:
    from rootless.errors import (
        ContainerNotFound,
        ImageNotFound,
        NetworkNotFound,
        RlError,
        VolumeNotFound,
    )

    container = _measured if size else _container
    look_ups = {"container": container, "image": _image, "volume": _volume, "network": _network}
    for kind in kinds:
        try:
            return look_ups[kind](root, name)
        except (ContainerNotFound, ImageNotFound, NetworkNotFound, VolumeNotFound):
            if len(kinds) == 1:
                raise
    raise RlError(f"no such container, image, volume or network: {name}")


def _container(root: Path, name: str) -> dict[str, Any]:
    from rootless.cli import container_inspect
    from rootless.containers.store import ContainerStore

    return container_inspect.inspect(ContainerStore(root).get(name))


def _measured(root: Path, name: str) -> dict[str, Any]:
    """Return all about a container, and what it wrote, by itself and with its image."""
    from rootless.containers.changes import sizes
    from rootless.containers.store import ContainerStore
    from rootless.images import usage
    from rootless.images.store import ImageStore

    container = ContainerStore(root).get(name)
    written = sizes([container])[container.id]
    image = usage.sizes(ImageStore(root)).get(container.extra.image_id, 0)
    return _container(root, container.id) | {"SizeRw": written, "SizeRootFs": written + image}


def _image(root: Path, name: str) -> dict[str, Any]:
    from rootless.cli import image_view
    from rootless.images import usage
    from rootless.images.store import ImageStore

    store = ImageStore(root)
    return image_view.inspect(usage.unpacked(store, store.find(name)), root)


def _volume(root: Path, name: str) -> dict[str, Any]:
    from rootless.cli import volume_view
    from rootless.volumes.store import VolumeStore

    return volume_view.inspect(VolumeStore(root).get(name))


def _network(root: Path, name: str) -> dict[str, Any]:
    from rootless.cli import usernet_view
    from rootless.containers.store import ContainerStore
    from rootless.networks.definitions import Definitions

    found = usernet_view.find_built_in(name) or Definitions(root).get(name)
    return usernet_view.inspect(found, ContainerStore(root).list())
