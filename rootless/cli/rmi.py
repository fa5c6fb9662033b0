"""`rl rmi`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-f", "--force", is_flag=True, help="Remove images of stopped containers, too.")
@click.argument(
    "names", metavar="IMAGE...", nargs=-1, required=True, shell_complete=complete.images
)
@pass_settings
def rmi(settings: Settings, force: bool, names: tuple[str, ...]) -> int:
    """Remove images.

    A name is taken from its image; with its last name the image goes. An ID
    means all names of an image.
    """
    from rootless.cli.housekeeping import tidy
    from rootless.cli.pruning import removal_lines
    from rootless.cli.report import complain, for_each
    from rootless.containers.store import ContainerStore
    from rootless.errors import ImageNotFound
    from rootless.images.store import ImageStore

    root = settings.root
    images = ImageStore(root)
    containers = ContainerStore(root).list()
    in_use = {container.extra.image_id: container.name for container in containers}
    running = {
        container.extra.image_id: container.name for container in containers if container.active
    }

    def remove(name: str) -> None:
        try:
            removal = images.remove(name, in_use, force, running)
        except ImageNotFound as error:
            # Docker's rule: what is not there is as good as removed.
            if not force:
                raise
            complain(str(error))
            return
        for line in removal_lines(root, removal):
            click.echo(line[0].upper() + line[1:])

    status = for_each(names, remove)
    tidy(root)
    return status
