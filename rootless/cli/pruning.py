"""Removing what is not used: which containers, images, volumes and networks, and what that frees.

Called by the prune commands; asks, removes, and returns what to say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from rootless.cli.options import Decorator

if TYPE_CHECKING:
    from rootless.images.store import Image, Removal

Conditions = Mapping[str, list[str]]


class Pruned(NamedTuple):
    """What was removed, a line for each, and the bytes that this freed."""

    title: str
    lines: list[str]
    freed: int


def filter_option(help_text: str) -> Decorator:
    """Return the option --filter."""
    return click.option(
        "--filter", "conditions", multiple=True, metavar="KEY=VALUE", help=help_text
    )


force_option = click.option("-f", "--force", is_flag=True, help="Do not ask.")


def agreed(force: bool, warning: str) -> bool:
    """Tell whether to go on: without ``force`` a person is asked."""
    if force:
        return True
    click.echo(f"WARNING! {warning}")
    return click.confirm("Are you sure you want to continue?")


def say(*pruned: Pruned, total: bool = True) -> None:
    """Print what was removed, as Docker does; networks alone have no ``total``."""
    from rootless.cli.units import size

    for one in pruned:
        if one.lines:
            click.echo("\n".join((f"Deleted {one.title}:", *one.lines)) + "\n")
    if total:
        click.echo(f"Total reclaimed space: {size(sum(one.freed for one in pruned))}")


def containers(root: Path, wanted: Conditions) -> Pruned:
    """Remove the containers that do not run; ``wanted`` chooses by label and until."""
    from rootless.containers.changes import sizes
    from rootless.containers.remove import remove
    from rootless.containers.store import ContainerStore

    doomed = [
        container
        for container in ContainerStore(root).list()
        if not container.active and _chosen(container.created, container.extra.labels, wanted)
    ]
    freed = sum(sizes(doomed).values())
    for container in doomed:
        remove(root, container)
    return Pruned("Containers", [container.id for container in doomed], freed)


def images(root: Path, wanted: Conditions, *, everything: bool) -> Pruned:
    """Remove the images that no container has: those without a tag, or all."""
    from rootless.containers.store import ContainerStore
    from rootless.images.store import ImageStore

    used = {container.extra.image_id for container in ContainerStore(root).list()}
    doomed = [
        image
        for image in ImageStore(root).images()
        if image.id not in used
        and (everything or all("@" in name for name in image.names))
        and _chosen(image.created, image.config.labels, wanted)
    ]
    return remove_images(root, doomed)


def remove_images(root: Path, doomed: Collection[Image]) -> Pruned:
    """Remove images that no container has, and what only they need."""
    from rootless.cli.housekeeping import tidy
    from rootless.containers.store import ContainerStore
    from rootless.errors import ImageNotFound, RlError
    from rootless.images import usage
    from rootless.images.store import ImageStore

    store = ImageStore(root)
    before = usage.together(store, doomed)
    lines = []
    for image in doomed:
        in_use = {one.extra.image_id: one.name for one in ContainerStore(root).list()}
        try:
            # Asked once more: a container may have been made of it by now.
            removal = store.remove(image.id, {}, force=True, running=in_use)
        except (ImageNotFound, RlError):
            continue
        lines += removal_lines(root, removal)
    after = usage.together(store, store.images()).keys() | {
        usage.layer_part(diff_id) for diff_id in ContainerStore(root).used_layers()
    }
    tidy(root)
    freed = sum(size for part, size in before.items() if part not in after)
    return Pruned("Images", lines, freed)


def removal_lines(root: Path, removal: Removal) -> list[str]:
    """Return a line for each name and each image that is gone, and write their events down."""
    from rootless import events
    from rootless.images.reference import Reference

    lines = []
    for gone in removal.untagged:
        name = Reference.parse(gone).familiar
        events.record(root, "image", "untag", name, {"name": name})
        lines.append(f"untagged: {name}")
    for gone in removal.deleted:
        events.record(root, "image", "delete", gone, {"name": gone})
        lines.append(f"deleted: {gone}")
    return lines


def volumes(root: Path, wanted: Conditions, *, everything: bool) -> Pruned:
    """Remove the volumes that no container has: those that nobody named, or all."""
    from rootless.cli import filters
    from rootless.containers.changes import tree_sizes
    from rootless.containers.remove import remove_volume
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError
    from rootless.volumes.store import VolumeStore

    users = ContainerStore(root).used_volumes()
    doomed = [
        volume
        for volume in VolumeStore(root).list()
        if volume.name not in users
        and (everything or volume.anonymous)
        and filters.labels_match(wanted.get("label", ()), volume.labels)
        and not any(
            filters.labels_match([text], volume.labels) for text in wanted.get("label!", ())
        )
    ]
    sizes = tree_sizes({volume.name: str(volume.path) for volume in doomed})
    lines = []
    for volume in doomed:
        try:
            # Asked once more: a container may have it by now, or somebody has removed it.
            remove_volume(root, volume.name)
        except RlError:
            continue
        lines.append(volume.name)
    return Pruned("Volumes", lines, sum(sizes[name] for name in lines))


def networks(root: Path, wanted: Conditions) -> Pruned:
    """Remove the networks that no container has."""
    from rootless.cli import usernet_view
    from rootless.containers import connections, usernets
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError
    from rootless.networks.definitions import Definitions

    used = connections.users(ContainerStore(root))
    lines = []
    for definition in Definitions(root).list():
        if definition.name not in used and usernet_view.selected(definition, wanted, used):
            try:
                # Asked once more: a container may have it by now, or somebody has removed it.
                usernets.remove(root, definition.name)
            except RlError:
                continue
            lines.append(definition.name)
    return Pruned("Networks", lines, 0)


def _chosen(created: str, labels: Mapping[str, str], wanted: Conditions) -> bool:
    from datetime import UTC, datetime

    from rootless.cli import filters
    from rootless.cli.logs import parse_moment
    from rootless.cli.units import parse_time

    now = datetime.now(UTC)
    limits = [parse_moment(text, now) for text in wanted.get("until", ())]
    made = parse_time(created)
    return (
        filters.labels_match(wanted.get("label", ()), labels)
        and not any(filters.labels_match([text], labels) for text in wanted.get("label!", ()))
        and all(made is not None and made < limit for limit in limits)
    )
