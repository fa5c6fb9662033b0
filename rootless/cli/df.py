"""`rl system df`: how much disk images, containers and volumes take."""

from __future__ import annotations

import click

from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-v", "--verbose", is_flag=True, help="Show each of them.")
@click.option("--format", "template", metavar="FORMAT", help='"json", "table …" or a Go template.')
@pass_settings
def df(settings: Settings, verbose: bool, template: str | None) -> None:
    """Show how much disk all takes.

    Images, containers and volumes, and how much of it could be freed. An image of -v is as large as
    its unpacked layers; all images together take the archives that they came in, too.
    """
    from rootless.cli import df_view
    from rootless.cli.output import render
    from rootless.containers.changes import sizes, tree_sizes
    from rootless.containers.store import ContainerStore
    from rootless.images import usage
    from rootless.images.store import ImageStore
    from rootless.volumes.store import VolumeStore

    root = settings.root
    store = ImageStore(root)
    images, containers = store.images(), ContainerStore(root).list()
    volumes = VolumeStore(root).list()
    found = df_view.Found(
        images=[usage.unpacked(store, image) for image in images],
        parts={image.digest: usage.parts(store, image) for image in images},
        containers=containers,
        written=sizes(containers),
        volumes=volumes,
        held=tree_sizes({volume.name: str(volume.path) for volume in volumes}),
        users=ContainerStore(root).used_volumes(),
    )
    if verbose:
        click.echo(df_view.details(found), nl=False)
        return
    columns = df_view.COLUMNS
    click.echo(render(df_view.summary(found), df_view.TITLES, columns, template), nl=False)
