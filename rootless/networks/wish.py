"""What a container asks of a user network: its name, and what it wants to be there.

Owns the syntax of ``--network NAME:ip=…``. Pure. Made by the command line, read by containers'
``connections``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from rootless.errors import RlError
from rootless.networks.request import check_ip, check_mac

# <linux/if.h>: what can name an interface, but for its length.
_INTERFACE: Final = re.compile("[A-Za-z0-9_.-]{1,15}")
_OUR_INTERFACES: Final = ("lo", "tap0")
_DNS_NAME: Final = re.compile("[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_LONGEST_LABEL: Final = 63


class Wish(NamedTuple):
    """A network by its name; "" leaves an address, the MAC or the interface open."""

    name: str
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    interface: str = ""

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Wish:
        """Return what ``_asdict()`` became as JSON."""
        return cls(**{**fields, "aliases": tuple(fields["aliases"])})


def parse(text: str) -> list[Wish]:
    """Read an argument of --network: ``NAME[:OPTION=VALUE,…]``, Docker's ``name=NAME,…``.

    Several names may be listed with commas, as Podman takes them, but then without options.
    """
    if text.startswith("name="):
        name, _, rest = text.removeprefix("name=").partition(",")
        options = rest
    else:
        name, _, options = text.partition(":")
        if "," in name and not options:
            return [Wish(one) for one in name.split(",") if one]
    if not name:
        raise RlError(f"invalid network {text!r}: it has no name")
    fields: dict[str, str] = {}
    aliases: list[str] = []
    for option, value in _options(options):
        match option:
            case "ip" | "ip6":
                # Docker takes an address of either version under both names, Podman by itself.
                found = check_ip(value, option)
                fields["ip6" if ":" in found else "ip"] = found
            case "mac" | "mac-address" | "mac_address":
                fields["mac"] = check_mac(value)
            case "alias":
                aliases.append(check_alias(value))
            case "interface_name" | "interface":
                fields["interface"] = _check_interface(value)
            case _:
                raise RlError(
                    f"invalid network option {option!r} in {text!r}: there are ip, ip6, mac, "
                    "alias, interface_name"
                )
    return [Wish(name, aliases=tuple(aliases), **fields)]


def _options(text: str) -> Iterator[tuple[str, str]]:
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if not value:
            raise RlError(f"invalid network option {option!r}: expected NAME=VALUE")
        yield name, value


def check_alias(text: str) -> str:
    """Return a name that DNS can have; RlError if it is none."""
    if not _DNS_NAME.fullmatch(text) or any(
        not 0 < len(label) <= _LONGEST_LABEL for label in text.split(".")
    ):
        raise RlError(f"invalid network alias {text!r}: letters, digits, '-', '_' and '.'")
    return text


def _check_interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text) or text in (".", "..", *_OUR_INTERFACES):
        raise RlError(f"invalid interface name {text!r}: up to 15 letters and digits, not lo, tap0")
    return text


def check_all(wishes: Sequence[Wish]) -> None:
    """Raise RlError for what cannot be wished together."""
    for what in ("name", "interface"):
        values = [value for wish in wishes if (value := getattr(wish, what))]
        for value in values:
            if values.count(value) > 1:
                raise RlError(f"{'network' if what == 'name' else what} {value} is given twice")
