"""`rl exec`."""

from __future__ import annotations

from typing import Any

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import looking, process
from rootless.cli.settings import Settings, pass_settings


@click.command(
    "exec",
    cls=FlagCommand,
    # All after the container is the command, options included.
    context_settings={"allow_interspersed_args": False},
)
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@process.options
@looking.detach_keys
@click.option("--privileged", is_flag=True, help="With all capabilities.")
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def execute(settings: Settings, /, **values: Any) -> int:
    """Run a command in a running container."""
    process.check_terminal(values)
    wanted = {
        "name": values["name"],
        "command": values["command"],
        "env": process.environment(values),
        "cwd": values["workdir"],
        "user": values["user"],
        "terminal": values["tty"],
        "interactive": values["interactive"],
        "detached": values["detach"],
        "privileged": values["privileged"],
        "keys": values["detach_keys"],
    }
    if settings.hand_over is not None:
        settings.hand_over(wanted)
        return 0
    from rootless.containers import execution

    return execution.run(settings.root, **wanted)
