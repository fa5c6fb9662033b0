"""`rl exec`."""

from __future__ import annotations

import os
from typing import Any

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import looking, process
from rootless.cli.settings import Settings, pass_settings
from rootless.errors import RlError


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
    from rootless.containers import enter
    from rootless.containers.announce import announce
    from rootless.containers.store import ContainerStore

    process.check_terminal(values)
    container = ContainerStore(settings.root).get(values["name"])
    detached, keys = values["detach"], looking.keys(values)
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
    run = {"execID": os.urandom(32).hex()}
    command = " ".join(values["command"])
    announce(container, f"exec_create: {command}", **run)
    announce(container, f"exec_start: {command}", **run)
    code: int | None = RlError.exit_code
    interactive = values["interactive"] and not detached
    try:
        code = enter.run(container, wanted, interactive=interactive, keys=keys)
    except RlError as error:
        code = error.exit_code
        raise
    finally:
        # How a command ends that goes on without us, nobody is there to see.
        if code or not (detached or code is None):
            announce(container, "exec_die", **run, exitCode=str(code))
    return code or 0
