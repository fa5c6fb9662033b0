"""`rl stop`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.settings import Settings, pass_settings


@click.command
@click.option(
    "-t",
    "--time",
    "--timeout",
    "seconds",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="How long to wait before killing: 10, or what --stop-timeout said.",
)
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.running
)
@pass_settings
def stop(settings: Settings, seconds: int | None, names: tuple[str, ...]) -> int:
    """Stop containers.

    With the signal that their image names, and by force when that was not enough.
    """
    from rootless.cli.report import for_each
    from rootless.containers import stop as stopping
    from rootless.containers.store import ContainerStore

    store = ContainerStore(settings.root)

    def stop_one(name: str) -> None:
        stopping.stop(store.get(name), seconds)
        click.echo(name)

    return for_each(names, stop_one)
