"""`rl ps`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

if TYPE_CHECKING:
    from pathlib import Path

    from rootless.cli.output import Row
    from rootless.containers.store import Container


@click.command(cls=FlagCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Show those that do not run, too.")
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("-s", "--size", is_flag=True, help="Show how much they have written.")
@click.option("-l", "--latest", is_flag=True, help="Show the one made last.")
@click.option("-n", "--last", type=int, default=-1, metavar="N", help="Show the N made last.")
@click.option(
    "--sort",
    type=click.Choice(
        ["command", "created", "id", "image", "names", "runningfor", "size", "status"]
    ),
    help="In this order, instead of the newest first.",
)
@click.option("--noheading", is_flag=True, help="Leave out the heading of the table.")
@click.option("--format", "template", metavar="FORMAT", help='"json", "table …" or a Go template.')
@click.option(
    "-f",
    "--filter",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete.container_filters,
    help="Show some, by ancestor, before, exited, expose, health, id, label, name, network, "
    "publish, restart-policy, should-start-on-boot, since, status, volume.",
)
@pass_settings
def ps(
    settings: Settings,
    everything: bool,
    quiet: bool,
    no_trunc: bool,
    size: bool,
    latest: bool,
    last: int,
    sort: str | None,
    noheading: bool,
    template: str | None,
    conditions: tuple[str, ...],
) -> None:
    """List containers."""
    from rootless.cli import container_view
    from rootless.cli.output import render
    from rootless.cli.selection import choose

    root = settings.root
    containers, all_states = choose(root, conditions)
    count = 1 if latest else last
    if count >= 0:
        containers = containers[:count]
    elif not everything and not all_states:
        alive = ("running", "restarting")
        containers = [container for container in containers if container.state.status in alive]
    if sort == "size":
        from rootless.containers.changes import sizes

        written = sizes(containers)
        containers.sort(key=lambda container: written[container.id])
    elif sort:
        containers.sort(key=container_view.ORDERS[sort])
    now = datetime.now(UTC)
    rows = [
        container_view.row(container, truncate=not no_trunc, now=now) for container in containers
    ]
    columns: tuple[str, ...] = container_view.COLUMNS
    if size or ".Size" in (template or ""):
        _add_sizes(root, containers, rows)
        columns += ("Size",)
    if quiet and not template:
        template = "{{.ID}}"
    shown = render(rows, container_view.TITLES, columns, template, heading=not noheading)
    click.echo(shown, nl=False)


def _add_sizes(root: Path, containers: list[Container], rows: list[Row]) -> None:
    from rootless.cli import units
    from rootless.containers import disk
    from rootless.containers.changes import sizes
    from rootless.images import usage
    from rootless.images.store import ImageStore

    store = ImageStore(root)
    images = usage.sizes(store)
    written = sizes(containers)
    for container, row in zip(containers, rows, strict=True):
        own = written[container.id]
        virtual = own + images.get(container.extra.image_id, 0)
        shown = units.size_of(own, disk.of(container).size)
        row["Size"] = f"{shown} (virtual {units.size(virtual)})"
