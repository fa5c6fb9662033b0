"""What goes wrong with one of several things named: said at once, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from rootless.cli.text import printable
from rootless.errors import RlError


def complain(message: str) -> None:
    """Print one line on stderr."""
    click.echo(f"rl: {printable(message)}", err=True)


def for_each(names: Iterable[str], action: Callable[[str], None]) -> int:
    """Call ``action`` for every name and return the exit status: that of the last failure, or 0."""
    status = 0
    for name in names:
        try:
            action(name)
        except RlError as error:
            complain(str(error))
            status = error.exit_code
    return status
