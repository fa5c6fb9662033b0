"""`rl exec`."""

from __future__ import annotations

from typing import Any

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import process
from rootless.cli.settings import Settings, pass_settings


@click.command(
    "exec",
    cls=FlagCommand,
    # All after the container is the command, options included.
    context_settings={"allow_interspersed_args": False},
)
@click.option("-d", "--detach", is_flag=True, help="Leave it running.")
@process.options
@click.option("--privileged", is_flag=True, help="With all capabilities.")
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_settings
def execute(settings: Settings, /, **values: Any) -> int:
    """Run a command in a running container."""
    from rootless.containers import enter
    from rootless.containers.store import ContainerStore

    process.check_terminal(values)
    container = ContainerStore(settings.root).get(values["name"])
    detached = values["detach"]
    wanted = enter.plan(
        container,
        values["command"],
        env=process.environment(values),
        cwd=values["workdir"],
        user=values["user"],
        # Nobody would hold the terminal of a detached command.
        terminal=values["tty"] and not detached,
        privileged=values["privileged"],
        detached=detached,
    )
    return enter.run(container, wanted, interactive=values["interactive"] and not detached)
