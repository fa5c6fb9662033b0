"""`rl top`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.settings import Settings, pass_settings


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@click.argument("options", metavar="[PS OPTION]...", nargs=-1, type=click.UNPROCESSED)
@pass_settings
def top(settings: Settings, name: str, options: tuple[str, ...]) -> None:
    """Show the processes of a running container."""
    from rootless.cli.output import table
    from rootless.containers.processes import listing
    from rootless.containers.store import ContainerStore

    container = ContainerStore(settings.root).get(name)
    click.echo(table(["\t".join(row) for row in listing(container, options or ("-ef",))]), nl=False)
