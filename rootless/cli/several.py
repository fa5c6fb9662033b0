"""Commands on the containers that are named, or on all of them: stop, kill, restart, rm.

Owns --all, --cidfile, --ignore and what they go together with, and --time; never says what is done
to a container.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from rootless.cli import complete
from rootless.cli.options import Decorator, together
from rootless.errors import ContainerDamaged, ContainerNotFound, RlError

if TYPE_CHECKING:
    from rootless.containers.store import Container, ContainerStore


_LONGEST_NAME: Final = 4096

ignore: Decorator = click.option(
    "-i", "--ignore", is_flag=True, help="What is not there is no error."
)
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
    """Return the argument for names, and --all, whose help is ``which``, and --cidfile."""
    return together(
        click.option("-a", "--all", "everything", is_flag=True, help=which),
        click.option(
            "--cidfile",
            "cidfiles",
            multiple=True,
            metavar="FILE",
            help="Also the one whose ID is in FILE.",
        ),
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
    cidfiles: tuple[str, ...],
    *,
    everything: bool,
    wanted: Callable[[Container], bool] = lambda _: True,
    ignore: bool = False,
) -> tuple[str, ...]:
    """Return the names given, and those in files, or with --all those of all ``wanted``.

    With ``ignore`` only names of containers that there are.
    """
    if everything and (names or cidfiles):
        raise click.UsageError("--all chooses the containers: name none")
    if everything:
        return tuple(container.name for container in store.list() if wanted(container))
    if not names and not cidfiles:
        raise click.UsageError("Missing argument 'CONTAINER...'")
    names += tuple(_read(path) for path in cidfiles if not ignore or os.path.exists(path))
    return tuple(name for name in names if not ignore or _exists(store, name))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline(_LONGEST_NAME).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it holds no ID"
        raise RlError(f"cannot read the container ID file {path}: {reason}") from None


def _exists(store: ContainerStore, name: str) -> bool:
    try:
        store.get(name)
    except ContainerNotFound:
        return False
    except ContainerDamaged:
        pass
    return True
