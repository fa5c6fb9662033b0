"""The container's network, its names there, and the ports that it publishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rootless.cli.options import together

options = together(
    click.option(
        "--network",
        "--net",
        metavar="MODE",
        help="bridge, none, host, private, pasta[:OPTION,…], slirp4netns[:OPTION,…].",
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
    click.option("--mac-address", metavar="MAC", help="The container's MAC address."),
    click.option("-h", "--hostname", metavar="NAME", help="The container's hostname."),
)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Request's fields; RlError for what is invalid or fits not together."""
    from rootless.errors import RlError
    from rootless.networks import mode, request
    from rootless.networks.ports import parse_expose, parse_publish

    net, warning = mode.choose(values["network"])
    if net.name == "container":
        raise RlError("--network container:NAME is not here yet")
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
        ip=values["ip"] and request.check_ip(values["ip"], "--ip"),
        mac_address=values["mac_address"] and request.check_mac(values["mac_address"]),
    )
    if wanted.ip and (net.name != "pasta" or ":" in wanted.ip):
        raise RlError("--ip takes an IPv4 address, and needs --network pasta")
    if wanted.mac_address and not net.helper:
        raise RlError("--mac-address needs a network of the container's own")
    if wanted.published and not net.helper:
        # Docker's own words.
        click.echo(
            f"rl: warning: published ports are discarded when using {net.name} network mode",
            err=True,
        )
    return {"network": str(net), "net": wanted, "hostname": values["hostname"]}
