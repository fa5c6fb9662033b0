"""What --network means: the modes, their options after a colon, and which is the default.

Pure, but for the look at which programs a machine has. Called by the command
line, by spec, and by ``helper``, which carries a mode out.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from rootless.errors import RlError
from rootless.kernel import process

# As they are packaged: what to install is said by name.
_PACKAGES: Final = {
    "pasta": "pasta (Debian, Ubuntu, Fedora: passt)",
    "slirp4netns": "slirp4netns",
}
_DEFAULTS: Final = ("bridge", "default", "private")
# Where administrators' programs lie that a user's PATH may leave out.
_SBIN: Final = ":/usr/local/sbin:/usr/sbin:/sbin"

_PASTA_FLAGS: Final = frozenset("-4 --ipv4-only -6 --ipv6-only --map-gw --no-icmp".split())
_PASTA_VALUES: Final = frozenset(
    "-a --address -n --netmask -g --gateway -i --interface -I --ns-ifname -m --mtu -o --outbound "
    "-t --tcp-ports -u --udp-ports -T --tcp-ns -U --udp-ns".split()
)
_SLIRP_OPTIONS: Final = frozenset(
    "allow_host_loopback cidr enable_ipv6 mtu outbound_addr outbound_addr6 port_handler".split()
)
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


class Mode(NamedTuple):
    """One mode: none, host, pasta, slirp4netns or container, with what came after its colon."""

    name: str
    options: tuple[str, ...] = ()

    @property
    def helper(self) -> bool:
        """Whether a program connects the container's own network namespace to the world."""
        return self.name in _PACKAGES

    @property
    def own_namespace(self) -> bool:
        """Whether the container gets a new network namespace."""
        return self.name not in ("host", "container")

    def __str__(self) -> str:
        return ":".join((self.name, ",".join(self.options))) if self.options else self.name

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Read the argument of --network but for the names of the default; RlError if invalid."""
        name, colon, rest = text.partition(":")
        options = tuple(filter(None, rest.split(",")))
        match name:
            case "none" | "host" if not colon:
                pass
            case "pasta":
                _check_pasta(options)
            case "slirp4netns":
                slirp_options(options)
            case "container" if rest:
                options = (rest,)
            case _:
                raise RlError(
                    f"invalid network {text!r}: there are none, host, private, pasta[:OPTION,…], "
                    "slirp4netns[:OPTION,…] and container:NAME"
                )
        return cls(name, options)


def is_mode(text: str) -> bool:
    """Tell whether an argument of --network is a mode, and not the name of a user network."""
    name = text.partition(":")[0]
    return name in (*_DEFAULTS, *_PACKAGES, "none", "host", "container", "ns")


def way_out() -> Mode:
    """Return how a container on user networks gets out of them: by pasta or slirp4netns, or not."""
    found, _ = choose(None)
    return found if found.helper else Mode("none")


def choose(text: str | None) -> tuple[Mode, str]:
    """Return the mode that was asked for, and a warning or "".

    Without a wish it is the best that this machine can do.
    """
    if text is not None and text not in _DEFAULTS:
        return Mode.parse(text), ""
    # pasta takes its addresses from the way out; it refuses to work where there is none.
    if _has_default_route() and find("pasta"):
        return Mode("pasta"), ""
    if find("slirp4netns"):
        return Mode("slirp4netns"), ""
    warning = (
        "the container shares the host's network, since neither pasta nor slirp4netns is "
        "installed (Debian, Ubuntu, Fedora: passt); --network host does so without this warning"
    )
    if text is not None:
        raise RlError(f"--network {text} needs {_PACKAGES['pasta']} or slirp4netns")
    return Mode("host"), warning


def find(program: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return process.find_program(program, os.environ.get("PATH", os.defpath) + _SBIN)


def need(program: str) -> str:
    """Return the path of a program; RlError says what to install."""
    if path := find(program):
        return path
    raise RlError(
        f"the network needs {_PACKAGES[program]}, which is not installed "
        "(--network none and host do without)"
    )


def _check_pasta(options: tuple[str, ...]) -> None:
    """Raise RlError for what is no argument of pasta that may be given."""
    rest = list(options)
    while rest:
        option = rest.pop(0)
        if option in _PASTA_VALUES and rest:
            rest.pop(0)
        elif option not in _PASTA_FLAGS and option.partition("=")[0] not in _PASTA_VALUES:
            raise RlError(
                f"invalid network option {option!r} of pasta: there are "
                + " ".join(sorted(_PASTA_FLAGS | _PASTA_VALUES))
            )


def slirp_options(options: tuple[str, ...]) -> dict[str, str]:
    """Return the options of slirp4netns by name; RlError for one that there is not."""
    found = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in _SLIRP_OPTIONS or not value:
            raise RlError(
                f"invalid network option {option!r} of slirp4netns: there are "
                + "=… ".join(sorted(_SLIRP_OPTIONS))
                + "=…"
            )
        if name == "port_handler" and value != "slirp4netns":
            raise RlError(
                f"slirp4netns:port_handler={value}: only slirp4netns itself forwards ports here "
                "(--network pasta keeps the addresses of clients)"
            )
        if name in ("allow_host_loopback", "enable_ipv6") and value not in _TRUTHS:
            raise RlError(f"invalid network option {option!r}: {value!r} is no truth value")
        found[name] = value
    return found


def truth(value: str) -> bool:
    """Return what a checked truth value means."""
    return _TRUTHS[value]


def _has_default_route() -> bool:
    """Tell whether this machine has a way out, by either IP."""
    return bool(default_families())


def default_families() -> frozenset[int]:
    """Return the versions of IP (4, 6) for which this machine has a default route."""
    found = set()
    # proc(5): destination and mask of IPv4; destination, its length, …, interface of IPv6.
    for line in _lines("/proc/net/route"):
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            found.add(4)
    for line in _lines("/proc/net/ipv6_route"):
        fields = line.split()
        if len(fields) == 10 and fields[:2] == ["0" * 32, "00"] and fields[9] != "lo":
            found.add(6)
    return frozenset(found)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.readlines()
    except OSError:
        return []
