"""`rl restart`."""

from __future__ import annotations

import click

from rootless.cli import several
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@several.patience
@several.containers("All, whether they run or not.", running=False)
@pass_settings
def restart(
    settings: Settings,
    seconds: int | None,
    everything: bool,
    cidfiles: tuple[str, ...],
    names: tuple[str, ...],
) -> int:
    """Stop containers and start them again."""
    from rootless.cli.report import for_each
    from rootless.cli.start import start_one
    from rootless.containers import stop
    from rootless.containers.announce import announce
    from rootless.containers.store import ContainerStore

    store = ContainerStore(settings.root)
    names = several.chosen(store, names, cidfiles, everything=everything)

    def restart_one(name: str) -> None:
        container = store.get(name)
        stop.stop(container, seconds)
        start_one(settings.root, store.by_id(container.id), None)
        announce(container, "restart")
        click.echo(name)

    return for_each(names, restart_one)
