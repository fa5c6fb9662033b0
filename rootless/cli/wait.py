"""`rl wait`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.settings import Settings, pass_settings


@click.command
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.containers
)
@pass_settings
def wait(settings: Settings, names: tuple[str, ...]) -> int:
    """Wait for containers to end, and print their exit codes."""
    from rootless.cli.report import for_each
    from rootless.containers.store import ContainerStore
    from rootless.containers.wait import wait_for_end

    store = ContainerStore(settings.root)
    return for_each(names, lambda name: click.echo(wait_for_end(store, store.get(name))))
