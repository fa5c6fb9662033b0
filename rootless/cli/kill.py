"""`rl kill`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.settings import Settings, pass_settings


@click.command
@click.option("-s", "--signal", default="KILL", show_default=True, help="The signal to send.")
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.running
)
@pass_settings
def kill(settings: Settings, signal: str, names: tuple[str, ...]) -> int:
    """Send a signal to containers."""
    from rootless.cli.report import for_each
    from rootless.containers import stop
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    store = ContainerStore(settings.root)
    number = stop.parse_signal(signal)

    def kill_one(name: str) -> None:
        container = store.get(name)
        if container.state.status != "running":
            raise RlError(f"cannot kill container {name}: it is not running")
        stop.send_signal(container, number)
        click.echo(name)

    return for_each(names, kill_one)
