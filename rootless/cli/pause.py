"""`rl pause` and `rl unpause`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.running
)
@pass_settings
def pause(settings: Settings, names: tuple[str, ...]) -> int:
    """Freeze all processes of containers."""
    from rootless.cli.report import for_each
    from rootless.containers import pause as pausing
    from rootless.containers.store import ContainerStore

    store = ContainerStore(settings.root)

    def pause_one(name: str) -> None:
        pausing.pause(store.get(name))
        click.echo(name)

    return for_each(names, pause_one)


@click.command(cls=FlagCommand)
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.paused
)
@pass_settings
def unpause(settings: Settings, names: tuple[str, ...]) -> int:
    """Let paused containers go on."""
    from rootless.cli.report import for_each
    from rootless.containers import pause as pausing
    from rootless.containers.store import ContainerStore

    store = ContainerStore(settings.root)

    def unpause_one(name: str) -> None:
        pausing.unpause(store.get(name))
        click.echo(name)

    return for_each(names, unpause_one)
