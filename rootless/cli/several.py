"""Commands on the containers that are named, or on all of them: stop, kill, restart, rm.

Owns --all and what it goes together with, and --time; never says what is done to a container.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from rootless.cli import complete
from rootless.cli.options import Decorator, together

if TYPE_CHECKING:
    from rootless.containers.store import Container, ContainerStore


patience: Decorator = click.option(
    "-t",
    "--time",
    "--timeout",
    "seconds",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="How long to wait before killing: 10, or what --stop-timeout said.",
)


def containers(which: str, *, running: bool) -> Decorator:
    """Return the argument for names, and --all, whose help is ``which``."""
    return together(
        click.option("-a", "--all", "everything", is_flag=True, help=which),
        click.argument(
            "names",
            metavar="CONTAINER...",
            nargs=-1,
            shell_complete=complete.running if running else complete.containers,
        ),
    )


def chosen(
    store: ContainerStore,
    names: tuple[str, ...],
    *,
    everything: bool,
    wanted: Callable[[Container], bool] = lambda _: True,
) -> tuple[str, ...]:
    """Return the names given, or with --all those of all ``wanted``."""
    if everything and names:
        raise click.UsageError("--all chooses the containers: name none")
    if everything:
        return tuple(container.name for container in store.list() if wanted(container))
    if not names:
        raise click.UsageError("Missing argument 'CONTAINER...'")
    return names
