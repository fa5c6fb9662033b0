"""`rl update`: other limits for containers, at once where they run."""

from __future__ import annotations

from typing import Any

import click

from rootless.cli import complete
from rootless.cli.options import storage
from rootless.cli.settings import Settings, pass_settings


@click.command
@storage.disk_limit
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.containers
)
@pass_settings
def update(settings: Settings, /, names: tuple[str, ...], **values: Any) -> int:
    """Change the limits of containers."""
    from rootless.cli.report import complain, for_each
    from rootless.containers import disk
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    store = ContainerStore(settings.root)
    changes = disk.parse(values["storage_opt"])
    if changes == disk.Disk():
        raise RlError("you must provide one or more flags when using this command")

    def update_one(name: str) -> None:
        container = store.get(name)
        if not disk.update(store, container, changes):
            complain(
                f"warning: container {container.name} was started without a disk limit: it has "
                "one when it is started again"
            )
        click.echo(name)

    return for_each(names, update_one)
