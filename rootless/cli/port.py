"""`rl port`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.argument("name", metavar="CONTAINER", shell_complete=complete.containers)
@click.argument("private", metavar="[PORT[/PROTOCOL]]", required=False)
@pass_settings
def port(settings: Settings, name: str, private: str | None) -> None:
    """Show which ports of the host lead to a container."""
    from rootless.cli.network_view import published
    from rootless.containers.store import ContainerStore
    from rootless.errors import RlError
    from rootless.networks.ports import parse_single

    container = ContainerStore(settings.root).get(name)
    found = sorted(
        published(container), key=lambda port: (port.container, port.protocol, port.host)
    )
    if private is None:
        for one in found:
            click.echo(f"{one} -> {one.where}")
        return
    wanted = str(parse_single(private))
    places = [one.where for one in found if str(one) == wanted]
    if not places:
        raise RlError(f"no public port {wanted!r} published for {name}", 1)
    click.echo("\n".join(places))
