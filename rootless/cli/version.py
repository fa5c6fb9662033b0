"""`rl version`."""

from __future__ import annotations

import os
import platform

import click

from rootless import __version__


@click.command
def version() -> None:
    """Show the versions of rl and its parts."""
    click.echo(f"rl version {__version__}")
    click.echo(f"python {platform.python_version()}, kernel {os.uname().release}")
