"""`rl container exists`: Podman's question of scripts."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command("exists", cls=FlagCommand)
@click.argument("name", metavar="CONTAINER", shell_complete=complete.containers)
@pass_settings
def exists(settings: Settings, name: str) -> int:
    """Tell whether there is a container.

    By the exit code: 0 if so, else 1.
    """
    from rootless.containers.store import ContainerStore
    from rootless.errors import ContainerDamaged, ContainerNotFound

    try:
        ContainerStore(settings.root).get(name)
    except ContainerNotFound:
        return 1
    except ContainerDamaged:
        pass
    return 0
