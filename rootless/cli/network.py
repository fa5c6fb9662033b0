"""`rl network create`, `ls`, `rm`, `prune`, `exists`, `connect` and `disconnect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rootless.cli import complete, pruning
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings

if TYPE_CHECKING:
    from pathlib import Path

_network = click.argument("network", shell_complete=complete.networks)
_container = click.argument("container", shell_complete=complete.containers)


@click.command(cls=FlagCommand)
@click.option(
    "-d",
    "--driver",
    type=click.Choice(["bridge"]),
    default="bridge",
    expose_value=False,
    help="Accepted: each network is a bridge of its own.",
)
@click.option("--subnet", multiple=True, metavar="CIDR", help="Its subnet, one of each IP.")
@click.option("--gateway", multiple=True, metavar="IP", help="The network's own address.")
@click.option(
    "--ip-range", multiple=True, metavar="CIDR", help="The part that containers get theirs from."
)
@click.option("--ipv6", is_flag=True, help="Addresses of IPv6, too.")
@click.option("--internal", is_flag=True, help="No way out of it.")
@click.option("--disable-dns", is_flag=True, help="Containers do not find each other by name.")
@click.option(
    "--ipam-driver",
    type=click.Choice(["default", "host-local"]),
    expose_value=False,
    help="Accepted: addresses are chosen by rl.",
)
@click.option(
    "--attachable",
    is_flag=True,
    expose_value=False,
    help="Accepted: any container can be connected.",
)
@click.option(
    "--scope",
    type=click.Choice(["local"]),
    expose_value=False,
    help="Accepted: a network is this machine's.",
)
@click.option("--label", multiple=True, metavar="NAME[=VALUE]", help="Label the network.")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="mtu=BYTES.")
@click.option("--ignore", is_flag=True, help="One that is there already is no error.")
@click.argument("name")
@pass_settings
def create(
    settings: Settings,
    name: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: tuple[str, ...],
    ipv6: bool,
    internal: bool,
    disable_dns: bool,
    label: tuple[str, ...],
    opt: tuple[str, ...],
    ignore: bool,
) -> None:
    """Make a network, on which containers find each other by name.

    Without --subnet it gets a free private one, 10.89.0.0/24 or above. Networks do not see each
    other.
    """
    from rootless.containers import usernets

    definition = usernets.create(
        settings.root,
        name,
        usernets.Plan(
            subnets=subnet,
            gateways=gateway,
            ranges=ip_range,
            ipv6=ipv6,
            internal=internal,
            dns=not disable_dns,
            labels=dict(item.partition("=")[::2] for item in label),
            options=dict(item.partition("=")[::2] for item in opt),
        ),
        ignore=ignore,
    )
    click.echo(definition.id)


@click.command("ls", cls=FlagCommand)
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--noheading", "-n", is_flag=True, help="No header.")
@click.option("--format", "template", metavar="FORMAT", help='"json", "table …" or a Go template.')
@click.option(
    "-f",
    "--filter",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    help="Show some, by dangling, driver, id, label, name, scope, type, until.",
)
@pass_settings
def list_networks(
    settings: Settings,
    quiet: bool,
    no_trunc: bool,
    noheading: bool,
    template: str | None,
    conditions: tuple[str, ...],
) -> None:
    """List networks.

    Three are always there, as for Docker: bridge, the default, which is each container's own (pasta
    or slirp4netns); host; none.
    """
    from rootless.cli import filters, usernet_view
    from rootless.cli.output import render
    from rootless.containers import connections
    from rootless.containers.store import ContainerStore
    from rootless.networks.definitions import Definitions

    wanted = filters.parse(conditions, usernet_view.FILTERS)
    used = connections.users(ContainerStore(settings.root)) if "dangling" in wanted else {}
    definitions = Definitions(settings.root).list()
    rows = [
        usernet_view.row(network, truncate=not no_trunc)
        for network in usernet_view.shown(definitions)
        if usernet_view.selected(network, wanted, used)
    ]
    if quiet and not template:
        template = "{{.ID}}"
    text = render(rows, usernet_view.TITLES, usernet_view.COLUMNS, template)
    if noheading and not template:
        text = text.partition("\n")[2]
    click.echo(text, nl=False)


@click.command(cls=FlagCommand)
@click.option(
    "-f", "--force", is_flag=True, help="With the containers that have it; absent is no error."
)
@click.argument(
    "names", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete.networks
)
@pass_settings
def rm(settings: Settings, force: bool, names: tuple[str, ...]) -> int:
    """Remove networks. One that a container has, running or not, takes --force."""
    from rootless.cli.report import for_each
    from rootless.containers import usernets
    from rootless.errors import NetworkNotFound

    def remove_one(name: str) -> None:
        try:
            if force:
                _remove_users(settings.root, name)
            usernets.remove(settings.root, name)
        except NetworkNotFound:
            if not force:
                raise
        click.echo(name)

    return for_each(names, remove_one)


def _remove_users(root: Path, name: str) -> None:
    """Remove the containers that have a network, as Podman does by force."""
    from rootless.containers import usernets
    from rootless.containers.remove import remove

    for container in usernets.users(root, name):
        remove(root, container, force=True)


@click.command(cls=FlagCommand)
@pruning.force_option
@pruning.filter_option("Only some, by label, label!, or until a time (10m, RFC 3339).")
@pass_settings
def prune(settings: Settings, force: bool, conditions: tuple[str, ...]) -> None:
    """Remove the networks that no container has, running or not."""
    from rootless.cli import filters

    wanted = filters.parse(conditions, ("label", "label!", "until"))
    warning = "This will remove all custom networks not used by at least one container."
    if pruning.agreed(force, warning):
        pruning.say(pruning.networks(settings.root, wanted), total=False)


@click.command(cls=FlagCommand)
@_network
@pass_settings
def exists(settings: Settings, network: str) -> int:
    """Tell whether there is a network.

    By the exit code: 0 if so, else 1.
    """
    from rootless.cli import usernet_view
    from rootless.errors import NetworkNotFound
    from rootless.networks.definitions import Definitions

    if network in usernet_view.BUILT_IN:
        return 0
    try:
        Definitions(settings.root).get(network)
    except NetworkNotFound:
        return 1
    return 0


@click.command(cls=FlagCommand)
@click.option("--ip", metavar="IP", default="", help="The container's address there.")
@click.option("--ip6", metavar="IP", default="", help="The container's address of IPv6.")
@click.option("--mac-address", metavar="MAC", default="", help="The container's MAC address.")
@click.option("--alias", multiple=True, metavar="NAME", help="Another name of the container.")
@_network
@_container
@pass_settings
def connect(
    settings: Settings,
    ip: str,
    ip6: str,
    mac_address: str,
    alias: tuple[str, ...],
    network: str,
    container: str,
) -> None:
    """Connect a container to a network.

    One that runs at once, if it was started with a user network.
    """
    from rootless.containers import connections
    from rootless.containers.store import ContainerStore
    from rootless.networks import request, wish

    wanted = wish.Wish(
        network,
        ip=ip and request.check_ip(ip, "--ip", 4),
        ip6=ip6 and request.check_ip(ip6, "--ip6", 6),
        mac=mac_address and request.check_mac(mac_address),
        aliases=tuple(map(wish.check_alias, alias)),
    )
    found = ContainerStore(settings.root).get(container)
    connections.connect(settings.root, found, network, wanted)


@click.command(cls=FlagCommand)
@click.option("-f", "--force", is_flag=True, help="A container that is not there is no error.")
@_network
@_container
@pass_settings
def disconnect(settings: Settings, force: bool, network: str, container: str) -> None:
    """Disconnect a container from a network."""
    from rootless.containers import connections
    from rootless.containers.store import ContainerStore
    from rootless.errors import ContainerNotFound

    try:
        found = ContainerStore(settings.root).get(container)
    except ContainerNotFound:
        if force:
            return
        raise
    connections.disconnect(settings.root, found, network)
