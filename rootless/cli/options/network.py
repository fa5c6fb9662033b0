"""The container's network, its names there, and the ports that it publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from rootless.cli import complete
from rootless.cli.options import together
from rootless.cli.settings import Settings

if TYPE_CHECKING:
    from rootless.networks.mode import Mode
    from rootless.networks.request import NetworkRequest
    from rootless.networks.wish import Wish

options = together(
    click.option(
        "--network",
        "--net",
        "networks",
        multiple=True,
        metavar="NETWORK",
        shell_complete=complete.modes,
        help="bridge, none, host, private, pasta[:OPTION,…], slirp4netns[:OPTION,…], "
        "container:NAME; or user "
        "networks: NAME[:ip=…,ip6=…,mac=…,alias=…,interface_name=…].",
    ),
    click.option(
        "--network-alias",
        multiple=True,
        metavar="NAME",
        help="Another name of the container on its user networks.",
    ),
    click.option(
        "-p",
        "--publish",
        multiple=True,
        metavar="[[IP:][HOST]:]CONTAINER[/PROTOCOL]",
        help="Let a port of the host lead to the container.",
    ),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all ports that are exposed."),
    click.option(
        "--expose", multiple=True, metavar="PORT[/PROTOCOL]", help="A port that may be published."
    ),
    click.option("--dns", multiple=True, metavar="IP", help="The name servers."),
    click.option("--dns-search", multiple=True, metavar="DOMAIN", help="The domains to search."),
    click.option(
        "--dns-option",
        "--dns-opt",
        multiple=True,
        metavar="OPTION",
        help="Options of the resolver.",
    ),
    click.option(
        "--add-host", multiple=True, metavar="NAME:IP", help="A line in the container's /etc/hosts."
    ),
    click.option("--ip", metavar="IP", help="The container's address."),
    click.option("--ip6", metavar="IP", help="The container's address of IPv6 on a user network."),
    click.option("--mac-address", metavar="MAC", help="The container's MAC address."),
    click.option("-h", "--hostname", metavar="NAME", help="The container's hostname."),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields; RlError for what is invalid or fits not together."""
    from rootless.errors import RlError
    from rootless.networks import mode, request
    from rootless.networks.ports import parse_expose, parse_publish

    asked: list[str] = [text for text in values["networks"] if mode.is_mode(text)]
    named = [text for text in values["networks"] if not mode.is_mode(text)]
    if len(asked) > 1 or (asked and named):
        raise RlError(
            f"conflicting networks {', '.join(values['networks'])}: a container has one network "
            "mode, or networks of rl network create"
        )
    if named:
        net, warning = mode.way_out(), ""
    else:
        net, warning = mode.choose(asked[0] if asked else None)
    if net.name == "container":
        _check_joined(values)
    if warning:
        click.echo(f"rl: warning: {warning}", err=True)
    wanted = request.NetworkRequest(
        published=tuple(port for text in values["publish"] for port in parse_publish(text)),
        exposed=tuple(port for text in values["expose"] for port in parse_expose(text)),
        publish_all=values["publish_all"],
        dns=tuple(request.check_ip(text, "--dns") for text in values["dns"]),
        dns_search=tuple(request.check_word(text, "--dns-search") for text in values["dns_search"]),
        dns_options=tuple(
            request.check_word(text, "--dns-option") for text in values["dns_option"]
        ),
        add_hosts=tuple(map(request.parse_add_host, values["add_host"])),
        ip=values["ip"] and request.check_ip(values["ip"], "--ip", 4),
        mac_address=values["mac_address"] and request.check_mac(values["mac_address"]),
    )
    if named:
        wanted = _on_networks(named, wanted, values)
    elif values["network_alias"] or values["ip6"]:
        option = "--network-alias" if values["network_alias"] else "--ip6"
        raise RlError(f"{option} needs a network of rl network create")
    elif wanted.ip and net.name != "pasta":
        raise RlError("--ip needs --network pasta, or a network of rl network create")
    if wanted.mac_address and not net.helper:
        raise RlError("--mac-address needs a network of the container's own")
    if wanted.published and not net.helper:
        # Docker's own words.
        click.echo(
            f"rl: warning: published ports are discarded when using {net.name} network mode",
            err=True,
        )
    return {"network": str(net), "net": wanted, "hostname": values["hostname"]}


def mode_of(values: Mapping[str, Any]) -> Mode:
    """Return the network mode that is asked for, or that is the way out of user networks."""
    from rootless.networks import mode

    asked = next(filter(mode.is_mode, values["networks"]), None)
    if values["networks"] and asked is None:
        return mode.way_out()
    return mode.choose(asked)[0]


def _on_networks(
    texts: Sequence[str], wanted: NetworkRequest, values: Mapping[str, Any]
) -> NetworkRequest:
    """Return what is wanted of a container on user networks; addresses are of its only one."""
    from rootless.errors import RlError
    from rootless.networks import request, wish

    wishes = [found for text in texts for found in _parse(text)]
    given: dict[str, Any] = {
        "ip": wanted.ip,
        "ip6": values["ip6"] and request.check_ip(values["ip6"], "--ip6", 6),
        "mac": wanted.mac_address,
    }
    for field, value in given.items():
        if not value:
            continue
        if len(wishes) > 1:
            option = "--mac-address" if field == "mac" else f"--{field}"
            raise RlError(f"{option} can only be used with a single network (NAME:{field}=… else)")
        wishes[0] = wishes[0]._replace(**{field: value})
    aliases = tuple(map(wish.check_alias, values["network_alias"]))
    wishes = [found._replace(aliases=(*found.aliases, *aliases)) for found in wishes]
    wish.check_all(wishes)
    networks = tuple(found._asdict() for found in wishes)
    return wanted._replace(ip=None, mac_address=None, networks=networks)


def _parse(text: str) -> list[Wish]:
    """Read the name of a user network with what is wanted there; RlError if it is none."""
    from rootless.errors import NetworkNotFound, RlError
    from rootless.networks import wish

    name, _, rest = text.partition(":")
    try:
        return wish.parse(text)
    except RlError:
        if "=" in text or not name or not rest or _known(name):
            raise
    # Somebody meant something else.
    from difflib import get_close_matches

    hint = f"rl network create {name} makes one"
    if close := get_close_matches(name, ["container", "pasta", "slirp4netns"], n=1):
        hint = f"did you mean --network {close[0]}:{rest}?"
    raise NetworkNotFound(f"no such network: {name} ({hint})")


def _known(name: str) -> bool:
    from rootless.errors import NetworkNotFound
    from rootless.networks.definitions import Definitions

    settings = click.get_current_context().find_object(Settings)
    assert settings is not None
    try:
        Definitions(settings.root).get(name)
    except NetworkNotFound:
        return False
    return True


def _check_joined(values: Mapping[str, Any]) -> None:
    """Raise RlError for what another container's network has already, in Docker's own words."""
    from rootless.errors import RlError

    for options, what in {
        ("hostname",): "hostname and the network mode",
        ("publish", "publish_all"): "port publishing and the container type network mode",
        ("expose",): "port exposing and the container type network mode",
        ("dns", "dns_search", "dns_option"): "dns and the network mode",
        ("add_host",): "custom host-to-IP mapping and the network mode",
        ("mac_address",): "mac-address and the network mode",
        ("ip",): "ip and the network mode",
    }.items():
        if any(values[option] for option in options):
            raise RlError(f"conflicting options: {what}")
