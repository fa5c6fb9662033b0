"""`rl export`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from rootless.cli import complete
from rootless.cli.cp import refuse_terminal
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-o", "--output", metavar="FILE", help="Write to FILE, not to standard output.")
@click.argument("name", metavar="CONTAINER", shell_complete=complete.containers)
@pass_settings
def export(settings: Settings, output: str | None, name: str) -> None:
    """Write a container's file system to a tar file.

    Without what is mounted in it.
    """
    from rootless import files
    from rootless.containers.copy import export as write
    from rootless.containers.store import ContainerStore

    if output is None:
        refuse_terminal()
    container = ContainerStore(settings.root).get(name)
    if output is None:
        write(settings.root, container, 1)
        return
    path = Path(output)
    aside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    fd = files.create(aside, path)
    try:
        write(settings.root, container, fd)
        files.publish(fd, aside, path)
    finally:
        os.close(fd)
        aside.unlink(missing_ok=True)
