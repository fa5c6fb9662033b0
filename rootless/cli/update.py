"""`rl update`: other limits for containers, at once where they run."""

from __future__ import annotations

from typing import Any

import click

from rootless.cli import complete
from rootless.cli.options import limits, storage
from rootless.cli.settings import Settings, pass_settings


@click.command
@limits.changeable
@storage.disk_limit
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.containers
)
@pass_settings
def update(settings: Settings, /, names: tuple[str, ...], **values: Any) -> int:
    """Change the limits of containers."""
    from rootless.cli.report import complain, for_each
    from rootless.containers import cgroup, disk
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    store = ContainerStore(settings.root)
    given, changes = limits.given_of(values), disk.parse(values["storage_opt"])
    if not given and changes == disk.Disk():
        raise RlError("you must provide one or more flags when using this command")

    def update_one(name: str) -> None:
        container = store.get(name)
        if given:
            cgroup.update(store, container, limits.changed(cgroup.limits_of(container), given))
        if changes != disk.Disk() and not disk.update(store, container, changes):
            complain(
                f"warning: container {container.name} was started without a disk limit: it has "
                "one when it is started again"
            )
        click.echo(name)

    return for_each(names, update_one)
