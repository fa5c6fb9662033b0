"""`rl attach`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import looking
from rootless.cli.settings import Settings, pass_settings

if TYPE_CHECKING:
    from rootless.containers.store import Container


@click.command(cls=FlagCommand)
@looking.options
@click.option("--no-stdin", is_flag=True, help="Do not connect our standard input.")
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@pass_settings
def attach(settings: Settings, /, name: str, no_stdin: bool, **values: Any) -> int:
    """Look on at a running container.

    Until it ends, or the keys to leave it come.
    """
    from rootless.containers.store import ContainerStore

    container = ContainerStore(settings.root).get(name)
    return look_on(container, stdin=not no_stdin, values=values)


def look_on(container: Container, *, stdin: bool, values: Mapping[str, Any]) -> int:
    """Attach to a container that runs, and return the status to leave with."""
    from rootless.containers import attach as attaching
    from rootless.containers.announce import announce
    from rootless.containers.console import connect
    from rootless.errors import RlError

    request = container.extra.request
    if container.paused:
        raise RlError("you cannot attach to a paused container, unpause it first")
    if container.state.status == "restarting":
        raise RlError("you cannot attach to a restarting container, wait until it is running")
    channel = connect(container.path) if container.state.status == "running" else None
    if channel is None:
        raise RlError("you cannot attach to a stopped container, start it first")
    onlooking = attaching.Onlooking(
        stdin=request["interactive"] and stdin,
        terminal=request["terminal"],
        keys=looking.keys(values),
    )
    channel.send({"attach": list(onlooking.handed)}, *onlooking.handed.values())
    onlooking.close_handed()
    announce(container, "attach")
    return onlooking.follow(channel, proxy=values["sig_proxy"]) or 0
