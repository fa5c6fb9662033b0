"""`rl stop`."""

from __future__ import annotations

import click

from rootless.cli import complete, several
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-s", "--signal", shell_complete=complete.signals, help="The signal to send first.")
@several.patience
@several.ignore
@several.containers("All that run.", running=True)
@pass_settings
def stop(
    settings: Settings,
    signal: str | None,
    seconds: int | None,
    ignore: bool,
    everything: bool,
    cidfiles: tuple[str, ...],
    names: tuple[str, ...],
) -> int:
    """Stop containers.

    With --signal or the one that their image names, and by force when that was not enough.
    """
    from rootless.cli.report import for_each
    from rootless.containers import stop as stopping
    from rootless.containers.store import ContainerStore

    store = ContainerStore(settings.root)
    number = None if signal is None else stopping.parse_signal(signal)
    names = several.chosen(
        store,
        names,
        cidfiles,
        everything=everything,
        wanted=lambda container: container.active,
        ignore=ignore,
    )

    def stop_one(name: str) -> None:
        stopping.stop(store.get(name), seconds, number)
        click.echo(name)

    return for_each(names, stop_one)
