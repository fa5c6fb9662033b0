"""Published ports as values, and the syntax of -p and --expose.

Pure and small: read by every command that looks at a container. ``reserve``
finds the host's ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Final, NamedTuple

from rootless.errors import RlError

_PROTOCOLS: Final = ("tcp", "udp")
_LARGEST: Final = 65535
# More is no port, and int() takes only so many.
_DIGITS: Final = 10
_LONGEST_SHOWN: Final = 100
# What Docker calls every address of the host.
ANY: Final = "0.0.0.0"


class Port(NamedTuple):
    """A port of the container on one of the host: ``host`` 0 means any, ``ip`` "" every address.

    With ``last``, the first free one from ``host`` to ``last``.
    """

    container: int
    protocol: str = "tcp"
    ip: str = ""
    host: int = 0
    last: int = 0

    def __str__(self) -> str:
        return f"{self.container}/{self.protocol}"

    @property
    def where(self) -> str:
        """Return the host's side as people write it: ADDRESS:PORT."""
        ip = self.ip or ANY
        return f"[{ip}]:{self.host}" if ":" in ip else f"{ip}:{self.host}"


def parse_publish(text: str) -> list[Port]:
    """Read the argument of -p: ``[[IP:][HOST]:]CONTAINER[/PROTOCOL]``, ranges as FIRST-LAST."""
    rest, protocol = _split_protocol(text)
    ip, rest = _split_ip(rest, text)
    host_text, colon, container_text = rest.rpartition(":")
    if not colon:
        host_text, container_text = "", rest
    if ":" in host_text:
        raise _invalid(text, "IPv6 addresses are written in brackets" if not ip else "")
    containers = _range(container_text, text)
    if not host_text:
        return [Port(number, protocol, ip) for number in containers]
    hosts = _range(host_text, text)
    if len(hosts) > 1 and len(containers) == 1:
        return [Port(containers[0], protocol, ip, hosts[0], hosts[-1])]
    if len(hosts) != len(containers):
        raise _invalid(text, "the ranges differ in length")
    return [
        Port(inside, protocol, ip, outside)
        for inside, outside in zip(containers, hosts, strict=True)
    ]


def parse_expose(text: str) -> list[Port]:
    """Read the argument of --expose: ``PORT[/PROTOCOL]``."""
    rest, protocol = _split_protocol(text)
    return [Port(number, protocol) for number in _range(rest, text)]


def parse_exposed(names: Iterable[str]) -> set[tuple[int, str]]:
    """Return number and protocol of all that an image's ExposedPorts name.

    Ranges that overlap, however many, cost no more than all the ports that there are.
    """
    spans: dict[str, set[range]] = {}
    for name in names:
        rest, protocol = _split_protocol(name)
        spans.setdefault(protocol, set()).add(_range(rest, name))
    found: set[tuple[int, str]] = set()
    for protocol, ranges in spans.items():
        done = 0
        for span in sorted(ranges, key=lambda span: span.start):
            found.update((port, protocol) for port in range(max(span.start, done), span.stop))
            done = max(done, span.stop)
    return found


def parse_single(text: str) -> Port:
    """Read ``PORT[/PROTOCOL]`` as `rl port` takes it."""
    (port, *more) = parse_expose(text)
    if more:
        raise _invalid(text, "a single port is expected")
    return port


def _split_protocol(text: str) -> tuple[str, str]:
    rest, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise _invalid(text, f"{protocol!r} is no protocol, there are tcp and udp")
    return rest, protocol


def _split_ip(rest: str, text: str) -> tuple[str, str]:
    if rest.startswith("["):
        ip, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            raise _invalid(text)
    elif rest.count(":") == 2:
        ip, _, rest = rest.partition(":")
    else:
        return "", rest
    if not ip:
        return "", rest
    from ipaddress import ip_address

    try:
        return str(ip_address(ip)), rest
    except ValueError:
        raise _invalid(text, f"{ip!r} is no IP address") from None


def _range(numbers: str, text: str) -> range:
    first, dash, last = numbers.partition("-")
    parts = (first, last if dash else first)
    if not all(part.isascii() and part.isdecimal() and len(part) <= _DIGITS for part in parts):
        raise _invalid(text, f"{numbers!r} is no port" if numbers else "")
    begin, end = int(first), int(last) if dash else int(first)
    if not 0 < begin <= end <= _LARGEST:
        raise _invalid(text, f"{numbers!r} is no port")
    return range(begin, end + 1)


def _invalid(text: str, why: str = "") -> RlError:
    expected = "expected [IP:][HOST]:CONTAINER[/tcp|udp]"
    said = (why or expected)[:_LONGEST_SHOWN]
    return RlError(f"invalid port {text[:_LONGEST_SHOWN]!r}: {said}")


def publish_all(exposed: Set[tuple[int, str]], published: Sequence[Port]) -> list[Port]:
    """Return ``published`` and, at any port of the host, what else is exposed (-P)."""
    more = exposed - {(port.container, port.protocol) for port in published}
    return [*published, *(Port(number, protocol) for number, protocol in sorted(more))]
