"""`rl attach`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("--detach-keys", metavar="KEYS", help="The keys to leave it: ctrl-p,ctrl-q.")
@click.option("--no-stdin", is_flag=True, help="Do not connect our standard input.")
@click.option(
    "--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to it (the default)."
)
@click.argument("name", metavar="CONTAINER", shell_complete=complete.running)
@pass_settings
def attach(
    settings: Settings, detach_keys: str | None, no_stdin: bool, sig_proxy: bool, name: str
) -> int:
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
    channel = connect(container.path) if container.state.status == "running" else None
    if channel is None:
        raise RlError("you cannot attach to a stopped container, start it first")
    onlooking = attaching.Onlooking(
        stdin=request["interactive"] and not no_stdin,
        output=True,
        terminal=request["terminal"],
        keys=attaching.parse_keys(attaching.DEFAULT_KEYS if detach_keys is None else detach_keys),
    )
    channel.send({"attach": list(onlooking.handed)}, *onlooking.handed.values())
    onlooking.close_handed()
    announce(container, "attach")
    return onlooking.follow(channel, proxy=sig_proxy) or 0
