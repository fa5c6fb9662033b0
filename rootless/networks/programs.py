"""The command lines of pasta and slirp4netns: pure, from what is wanted to arguments.

Both get the same addresses, so that a container's network looks alike. Neither
lets a container reach the host's loopback unless that was asked for. Called by
``helper``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from rootless.networks.mode import Mode, slirp_options, truth
from rootless.networks.ports import ANY, Port

# slirp4netns' own, slirp4netns(1); its forwarder of DNS queries among them.
ADDRESS: Final = "10.0.2.100"
GATEWAY: Final = "10.0.2.2"
RESOLVER: Final = "10.0.2.3"
# Of the private range, RFC 4193; with another prefix than slirp4netns has, which hosts may use.
ADDRESS6: Final = "fd52:6c00:2::100"
GATEWAY6: Final = "fd52:6c00:2::2"
INTERFACE: Final = "eth0"

# How pasta's options say what is the only version of IP.
_ONLY: Final = {"-4": 4, "--ipv4-only": 4, "-6": 6, "--ipv6-only": 6}
_ANY: Final = {4: ANY, 6: "::"}

# Forwarding, all of which pasta would do by itself.
_FROM_HOST: Final = (("tcp", "-t", "--tcp-ports"), ("udp", "-u", "--udp-ports"))
_TO_HOST: Final = (("-T", "--tcp-ns"), ("-U", "--udp-ns"))


def address(mode: Mode, ip: str | None) -> str:
    """Return the container's IPv4 address; "" where it is the host's, or nobody's."""
    if mode.name == "slirp4netns" and (cidr := slirp_options(mode.options).get("cidr")):
        # Its rule: the hundredth of the network.
        return f"{cidr.partition('/')[0].rpartition('.')[0]}.100"
    if not mode.helper or _addresses_given(mode.options):
        return ""
    return ip or ADDRESS


def _addresses_given(options: Sequence[str]) -> bool:
    names = {option.partition("=")[0] for option in options}
    return bool(names & {"-a", "--address", "-g", "--gateway"})


class Wanted(NamedTuple):
    """What a program is to do.

    ``families`` are the versions of IP that the host has a way for. Whether ``RESOLVER``
    forwards queries is said since pasta answers them from there alone if it does.
    """

    mode: Mode
    ports: Sequence[Port] = ()
    families: Collection[int] = (4,)
    forwards_dns: bool = False
    ip: str | None = None
    mac_address: str | None = None
    interface: str = INTERFACE

    @property
    def versions(self) -> frozenset[int]:
        """Return the versions of IP that the container gets."""
        chosen = {_ONLY[word] for word in self.mode.options if word in _ONLY}
        return frozenset(chosen or self.families)


def listening(wanted: Wanted) -> list[Port]:
    """Return the ports as they are open on the host: each address of every version by itself."""
    found: list[Port] = []
    for port in wanted.ports:
        anywhere = wanted.mode.name == "pasta" and not port.ip
        addresses = [_ANY[version] for version in sorted(wanted.versions)] if anywhere else []
        found += [port._replace(ip=address) for address in addresses or [port.ip]]
    return found


def pasta(wanted: Wanted, userns: str, netns: str) -> list[str]:
    """Return pasta's arguments to connect these namespaces."""
    given = list(wanted.mode.options)
    arguments = ["--config-net", "--foreground", "--quiet"]
    if wanted.forwards_dns:
        arguments += ["--dns-forward", RESOLVER]
    if "--map-gw" in given:
        given.remove("--map-gw")
    else:
        arguments.append("--no-map-gw")
    names = {option.partition("=")[0] for option in given}
    for short, long in _TO_HOST:
        if names.isdisjoint((short, long)):
            arguments += [short, "none"]
    if names.isdisjoint(_ONLY) and len(wanted.families) == 1:
        arguments.append("-4" if 4 in wanted.families else "-6")
    if not _addresses_given(given):
        arguments += _addresses(wanted)
    if not names & {"-I", "--ns-ifname"}:
        arguments += ["-I", wanted.interface]
    if wanted.mac_address:
        arguments += ["--ns-mac-addr", wanted.mac_address]
    for protocol, short, long in _FROM_HOST:
        specs = [_pasta_port(port) for port in wanted.ports if port.protocol == protocol]
        if not specs and names.isdisjoint((short, long)):
            specs = ["none"]
        for spec in specs:
            arguments += [short, spec]
    return [*arguments, *given, "--no-netns-quit", "--userns", userns, "--netns", netns]


def _addresses(wanted: Wanted) -> list[str]:
    """Return arguments for addresses of the container's own.

    pasta would give it the host's, and so hide the host from it.
    """
    arguments: list[str] = []
    if 4 in wanted.families:
        address = wanted.ip or ADDRESS
        arguments += ["-a", address, "-n", "255.255.255.0", "-g", gateway_of(address)]
    if 6 in wanted.families:
        arguments += ["-a", ADDRESS6, "-g", GATEWAY6]
    return arguments


def gateway_of(address: str) -> str:
    """Return the gateway of a container that has this address."""
    network, _, last = address.rpartition(".")
    return f"{network}.{2 if last != '2' else 1}"


def _pasta_port(port: Port) -> str:
    numbers = f"{port.host}:{port.container}"
    return f"{port.ip}/{numbers}" if port.ip else numbers


def slirp4netns(wanted: Wanted, netns: str, ready: int, exit_fd: int, socket: str) -> list[str]:
    """Return slirp4netns' arguments; it writes to ``ready`` and ends when ``exit_fd`` is closed.

    For its sandbox it has to be root of the container's user namespace already.
    """
    given = slirp_options(wanted.mode.options)
    arguments = ["--configure", "--enable-sandbox", "--enable-seccomp"]
    if not truth(given.get("allow_host_loopback", "false")):
        arguments.append("--disable-host-loopback")
    if truth(given.get("enable_ipv6", "false")):
        arguments.append("--enable-ipv6")
    arguments += [
        f"--{name.replace('_', '-')}={given[name]}"
        for name in ("cidr", "outbound_addr", "outbound_addr6")
        if name in given
    ]
    arguments.append(f"--mtu={given.get('mtu', '65520')}")
    if wanted.mac_address:
        arguments.append(f"--macaddress={wanted.mac_address}")
    if wanted.ports:
        arguments.append(f"--api-socket={socket}")
    arguments += [f"--ready-fd={ready}", f"--exit-fd={exit_fd}"]
    return [*arguments, "--netns-type=path", netns, wanted.interface]
