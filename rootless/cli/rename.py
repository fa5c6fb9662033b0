"""`rl rename`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.argument("name", metavar="CONTAINER", shell_complete=complete.containers)
@click.argument("new_name", metavar="NEW_NAME")
@pass_settings
def rename(settings: Settings, name: str, new_name: str) -> None:
    """Give a container another name."""
    from rootless.containers.announce import announce
    from rootless.containers.create import check_name
    from rootless.containers.store import ContainerStore

    check_name(new_name)
    store = ContainerStore(settings.root)
    container = store.get(name)
    store.rename(container, new_name)
    announce(store.by_id(container.id), "rename", oldName=container.name)
