"""The contents of a container's /etc/hosts and /etc/resolv.conf.

Pure but for reading the host's own files and its address. Called when a
container is made.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from rootless.files import read_text
from rootless.networks.mode import Mode
from rootless.networks.programs import RESOLVER, address
from rootless.networks.request import HOST_GATEWAY, NetworkRequest

_LOCALHOST: Final = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_HOST_NAMES: Final = "host.containers.internal host.docker.internal"
# Of the block for documentation, RFC 5737: routed as any other, and nothing is sent.
_SOMEWHERE: Final = ("192.0.2.1", 9)


def hosts(mode: Mode, hostname: str, wanted: NetworkRequest, addresses: Sequence[str] = ()) -> str:
    """Return /etc/hosts: the host's own in its network, else our names, and what was asked for.

    ``addresses`` are the container's own on user networks.
    """
    host_ip = "127.0.0.1" if mode.name == "host" else host_address() if mode.helper else ""
    added = []
    for entry in wanted.add_hosts:
        name, _, ip = entry.partition(":")
        ip = host_ip if ip == HOST_GATEWAY else ip
        if ip:
            added.append(f"{ip}\t{name}\n")
    if mode.name == "host":
        text = read_text("/etc/hosts") or _LOCALHOST
        if text[-1:] not in ("", "\n"):
            text += "\n"
    else:
        text = _LOCALHOST
    # The first one that fits is what a name means: what was asked for comes before ours.
    text += "".join(added)
    if mode.name != "host":
        for own in addresses or [address(mode, wanted.ip) or "127.0.1.1"]:
            text += f"{own}\t{hostname}\n"
    if mode.name == "host" or host_ip:
        text += f"{host_ip}\t{_HOST_NAMES}\n"
    return text


def host_address() -> str:
    """Return the address of this host on its way out, "" where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return address


def resolv_conf(
    mode: Mode, wanted: NetworkRequest, text: str | None = None, servers: Sequence[str] = ()
) -> str:
    """Return /etc/resolv.conf: the host's ``text``, with what was asked for in its place.

    In a network of the container's own the host's loopback is another one: the
    program that connects it forwards queries to what is there. ``servers`` are those
    of user networks, which forward them to those that were asked for.
    """
    lines = (read_text("/etc/resolv.conf") if text is None else text).splitlines()
    kept = [line for line in lines if line.strip() and line.lstrip()[0] not in "#;"]
    options = wanted.dns_options or _words(kept, "options")
    if servers and not any(option.startswith("ndots:") for option in wanted.dns_options):
        # Docker's too: the name of a container is whole as it is.
        options = [*(option for option in options if not option.startswith("ndots:")), "ndots:0"]
    servers = servers or wanted.dns or _servers(kept, forwarded=mode.helper)
    search = wanted.dns_search or _words(kept, "search") or _words(kept, "domain")
    # A single dot is Docker's way to ask for none.
    search = [] if list(search) == ["."] else search
    made = [f"search {' '.join(search)}"] if search else []
    made += [f"nameserver {server}" for server in servers]
    made += [f"options {' '.join(options)}"] if options else []
    return "".join(f"{line}\n" for line in made)


def _servers(lines: Sequence[str], *, forwarded: bool) -> list[str]:
    servers = _words(lines, "nameserver", each=True)
    if not forwarded:
        return servers
    outside = [RESOLVER if _is_loopback(server) else server for server in servers]
    return list(dict.fromkeys(outside))


def _is_loopback(server: str) -> bool:
    return server.startswith("127.") or server == "::1"


def _words(lines: Sequence[str], keyword: str, *, each: bool = False) -> list[str]:
    """Return the words after ``keyword``: of the last line, or one of ``each``."""
    found = [words[1:] for line in lines if (words := line.split())[0] == keyword]
    if each:
        return [words[0] for words in found if words]
    return found[-1] if found else []
