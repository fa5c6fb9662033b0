"""`rl diff`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.argument("name", metavar="CONTAINER", shell_complete=complete.containers)
@pass_settings
def diff(settings: Settings, name: str) -> None:
    """Show what a container has changed of its image.

    Each path with A for added, C for changed or D for deleted.
    """
    from rootless.cli.text import printable
    from rootless.containers.diff import differences
    from rootless.containers.store import ContainerStore
    from rootless.images.store import ImageStore

    container = ContainerStore(settings.root).get(name)
    images = ImageStore(settings.root)
    layers = [images.layer_path(layer) for layer in container.extra.layers]
    for change in differences(container, layers):
        click.echo(f"{change.kind} {printable(change.path)}")
