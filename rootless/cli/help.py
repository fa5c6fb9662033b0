"""`rl help`."""

from __future__ import annotations

import click

from rootless.cli.flags import FlagCommand


@click.command("help", cls=FlagCommand)
@click.argument("names", metavar="[COMMAND]", nargs=-1)
@click.pass_context
def show(context: click.Context, names: tuple[str, ...]) -> None:
    """Explain rl, or one of its commands."""
    explained = context.find_root()
    for name in names:
        group = explained.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"'{explained.command_path}' has no command {name!r}")
        _, command, _ = group.resolve_command(explained, [name])
        assert command is not None
        explained = click.Context(command, explained, info_name=name)
    click.echo(explained.get_help())
