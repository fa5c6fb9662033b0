"""`rl rmi`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.settings import Settings, pass_settings


@click.command
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
    from rootless import events
    from rootless.cli.housekeeping import tidy
    from rootless.cli.report import complain, for_each
    from rootless.containers.store import ContainerStore
    from rootless.errors import ImageNotFound
    from rootless.images.reference import Reference
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
        for gone in removal.untagged:
            name = Reference.parse(gone).familiar
            events.record(root, "image", "untag", name, {"name": name})
            click.echo(f"Untagged: {name}")
        for gone in removal.deleted:
            events.record(root, "image", "delete", gone, {"name": gone})
            click.echo(f"Deleted: {gone}")

    status = for_each(names, remove)
    tidy(root)
    return status
