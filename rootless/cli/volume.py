"""`rl volume create`, `ls`, `rm` and `prune`, as Docker has them."""

from __future__ import annotations

import click

from rootless.cli import complete, pruning
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

_names = click.argument(
    "names", metavar="VOLUME...", nargs=-1, required=True, shell_complete=complete.volumes
)


@click.command(cls=FlagCommand)
@click.option(
    "-d",
    "--driver",
    type=click.Choice(["local"]),
    default="local",
    expose_value=False,
    help="Accepted: volumes are directories here.",
)
@click.option(
    "-o",
    "--opt",
    multiple=True,
    metavar="KEY=VALUE",
    help="What it may hold: size=2G, inodes=100000.",
)
@click.option("--label", multiple=True, metavar="NAME[=VALUE]", help="Label the volume.")
@click.argument("name", required=False)
@pass_settings
def create(
    settings: Settings, opt: tuple[str, ...], label: tuple[str, ...], name: str | None
) -> None:
    """Make a volume; without a name it gets one. One that is there already stays as it is."""
    from rootless.images.store import ImageStore
    from rootless.volumes import options
    from rootless.volumes.store import ANONYMOUS, VolumeStore

    limit = options.parse(opt)
    root = settings.root
    store = VolumeStore(root)
    labels = dict(item.partition("=")[::2] for item in label)
    if name is None:
        name = store.new_name()
        labels[ANONYMOUS] = ""
    with ImageStore(root).shared():
        store.create(name, labels, limit)
    click.echo(name)


@click.command("ls", cls=FlagCommand)
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--format", "template", metavar="FORMAT", help='"json", "table …" or a Go template.')
@click.option(
    "-f",
    "--filter",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete.keys("dangling", "driver", "label", "name"),
    help="Show some, by dangling, driver, label, name.",
)
@pass_settings
def list_volumes(
    settings: Settings, quiet: bool, template: str | None, conditions: tuple[str, ...]
) -> None:
    """List volumes."""
    from rootless.cli import filters, volume_view
    from rootless.cli.output import render
    from rootless.containers.store import ContainerStore
    from rootless.volumes.store import VolumeStore

    wanted = filters.parse(conditions, volume_view.FILTERS)
    users = ContainerStore(settings.root).used_volumes() if "dangling" in wanted else {}
    rows = [
        volume_view.row(volume)
        for volume in VolumeStore(settings.root).list()
        if volume_view.selected(volume, wanted, users)
    ]
    if quiet and not template:
        template = "{{.Name}}"
    click.echo(render(rows, volume_view.TITLES, volume_view.COLUMNS, template), nl=False)


@click.command(cls=FlagCommand)
@click.option("-f", "--force", is_flag=True, help="One that is not there is no error.")
@_names
@pass_settings
def rm(settings: Settings, force: bool, names: tuple[str, ...]) -> int:
    """Remove volumes, with what they hold. One that a container has is not removed."""
    from rootless.cli.report import for_each
    from rootless.containers.remove import remove_volume
    from rootless.errors import VolumeNotFound

    def remove_one(name: str) -> None:
        try:
            remove_volume(settings.root, name)
        except VolumeNotFound:
            if not force:
                raise
        click.echo(name)

    return for_each(names, remove_one)


@click.command(cls=FlagCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have a name.")
@pruning.force_option
@pruning.filter_option("Only some, by label, label!, all.")
@pass_settings
def prune(settings: Settings, everything: bool, force: bool, conditions: tuple[str, ...]) -> None:
    """Remove the volumes that no container has: the anonymous ones, or all."""
    from rootless.cli import filters

    wanted = filters.parse(conditions, ("all", "label", "label!"))
    everything = everything or any(filters.truth("all", text) for text in wanted.get("all", ()))
    kind = "all" if everything else "anonymous"
    warning = f"This will remove {kind} local volumes not used by at least one container."
    if pruning.agreed(force, warning):
        pruning.say(pruning.volumes(settings.root, wanted, everything=everything))
