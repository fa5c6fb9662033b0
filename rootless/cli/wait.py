"""`rl wait`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option(
    "--condition",
    type=click.Choice(["stopped", "exited", "running", "healthy", "unhealthy"]),
    default="stopped",
    show_default=True,
    help="What to wait for; -1 is printed for all but an end.",
)
@click.option("--ignore", is_flag=True, help="What is not there has ended, with -1.")
@click.argument(
    "names", metavar="CONTAINER...", nargs=-1, required=True, shell_complete=complete.containers
)
@pass_settings
def wait(settings: Settings, condition: str, ignore: bool, names: tuple[str, ...]) -> int:
    """Wait for containers to end, and print their exit codes."""
    from rootless.cli.report import for_each
    from rootless.containers import wait as waiting
    from rootless.containers.store import ContainerStore
    from rootless.errors import ContainerNotFound

    store = ContainerStore(settings.root)

    def wait_for(name: str) -> None:
        try:
            container = store.get(name)
        except ContainerNotFound:
            if not ignore:
                raise
            click.echo(-1)
            return
        if condition in ("stopped", "exited"):
            click.echo(waiting.wait_for_end(store, container))
            return
        running = condition == "running"
        waiting.wait_until(
            store, container, waiting.is_running if running else waiting.has_health(condition)
        )
        # Podman's, of a container that has not ended.
        click.echo(-1)

    return for_each(names, wait_for)
