"""`rl cp`."""

from __future__ import annotations

import os

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-a", "--archive", is_flag=True, help="Keep owners.")
@click.option(
    "-L", "--follow-link", is_flag=True, help="Copy what SOURCE leads to, if it is a symbolic link."
)
@click.option("-q", "--quiet", is_flag=True, help="Do not say how much was copied.")
@click.argument("source", metavar="CONTAINER:SOURCE|SOURCE|-", shell_complete=complete.copied)
@click.argument("target", metavar="CONTAINER:TARGET|TARGET|-", shell_complete=complete.copied)
@pass_settings
def cp(
    settings: Settings, archive: bool, follow_link: bool, quiet: bool, source: str, target: str
) -> None:
    """Copy files into a container or out of it.

    Also from one to another. "-" is a tar archive on standard input or output. A container need
    not run.
    """
    from rootless.cli.report import complain
    from rootless.cli.units import size
    from rootless.containers.copy import End, Options, copy

    ends = End.parse(source), End.parse(target)
    if ends[1].stream:
        refuse_terminal()
    done = copy(settings.root, *ends, Options(archive, follow_link))
    if done.left_out:
        others = f" and {done.left_out - 1} more devices" if done.left_out > 1 else ""
        complain(f"warning: left out {done.device}{others}: nobody without root can make one")
    if not quiet and os.isatty(2) and not any(end.stream for end in ends):
        click.echo(f"Successfully copied {size(done.size)} to {target}", err=True)


def refuse_terminal() -> None:
    """Raise RlError if standard output is a terminal, which an archive would spoil."""
    from rootless.errors import RlError

    if os.isatty(1):
        raise RlError("an archive is not written to a terminal (redirect the output)")
