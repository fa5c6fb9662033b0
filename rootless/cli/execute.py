"""`rl exec`."""

from __future__ import annotations

import os

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(
    "exec",
    cls=FlagCommand,
    # All after the container is the command, options included.
    context_settings={"allow_interspersed_args": False},
)
@click.option("-i", "--interactive", is_flag=True, help="Connect our standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable.")
@click.option(
    "--env-file",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Set the variables in FILE.",
)
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user of the container.")
@click.option("-w", "--workdir", metavar="DIR", help="Start in DIR of the container.")
@click.option("--privileged", is_flag=True, help="With all capabilities.")
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def execute(
    settings: Settings,
    interactive: bool,
    tty: bool,
    detach: bool,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    privileged: bool,
    name: str,
    command: tuple[str, ...],
) -> int:
    """Run a command in a running container."""
    from rootless.containers import enter
    from rootless.containers.request import parse_env, parse_env_file
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    if tty and interactive and not detach and not os.isatty(0):
        raise RlError("the input device is not a terminal (leave out -t)")
    container = ContainerStore(settings.root).get(name)
    files = [line for path in env_file for line in parse_env_file(path)]
    wanted = enter.plan(
        container,
        command,
        env=parse_env([*files, *env], os.environ),
        cwd=workdir,
        user=user,
        # Nobody would hold the terminal of a detached command.
        terminal=tty and not detach,
        privileged=privileged,
        detached=detach,
    )
    return enter.run(container, wanted, interactive=interactive and not detach)
