"""`rl kill`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rootless.cli import complete, several
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

if TYPE_CHECKING:
    from rootless.containers.store import Container


@click.command(cls=FlagCommand)
@click.option(
    "-s",
    "--signal",
    default="KILL",
    show_default=True,
    shell_complete=complete.signals,
    help="The signal to send.",
)
@several.containers("All that run.", running=True)
@pass_settings
def kill(
    settings: Settings,
    signal: str,
    everything: bool,
    cidfiles: tuple[str, ...],
    names: tuple[str, ...],
) -> int:
    """Send a signal to containers."""
    from rootless.cli.report import for_each
    from rootless.containers import stop
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    store = ContainerStore(settings.root)
    number = stop.parse_signal(signal)
    names = several.chosen(store, names, cidfiles, everything=everything, wanted=_runs)

    def kill_one(name: str) -> None:
        container = store.get(name)
        if not _runs(container):
            raise RlError(f"cannot kill container {name}: it is not running")
        stop.send_signal(container, number)
        click.echo(name)

    return for_each(names, kill_one)


def _runs(container: Container) -> bool:
    # As Docker: one that waits to be restarted is not started again.
    return container.state.status in ("running", "restarting")
