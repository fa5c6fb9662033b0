"""`rl attach`."""

from __future__ import annotations

from typing import Any

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import looking
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@looking.options
@click.option("--no-stdin", is_flag=True, help="Do not connect our standard input.")
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@pass_settings
def attach(settings: Settings, /, name: str, no_stdin: bool, **values: Any) -> int:
    """Look on at a running container.

    Until it ends, or the keys to leave it come.
    """
    from rootless.containers import attach as attaching
    from rootless.containers.announce import announce
    from rootless.containers.console import connect
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError

    container = ContainerStore(settings.root).get(name)
    request = container.extra.request
    if container.paused:
        raise RlError("you cannot attach to a paused container, unpause it first")
    channel = connect(container.path) if container.state.status == "running" else None
    if channel is None:
        raise RlError("you cannot attach to a stopped container, start it first")
    onlooking = attaching.Onlooking(
        stdin=request["interactive"] and not no_stdin,
        terminal=request["terminal"],
        keys=looking.keys(values),
    )
    channel.send({"attach": list(onlooking.handed)}, *onlooking.handed.values())
    onlooking.close_handed()
    announce(container, "attach")
    return onlooking.follow(channel, proxy=values["sig_proxy"]) or 0
