"""The contents of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf.

Pure but for reading the host's own files. Called when a container is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_LOCALHOST: Final = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts(host_network: bool, hostname: str) -> str:
    """Return /etc/hosts: the host's own in its network, else loopback names and the hostname."""
    if host_network:
        return _read("/etc/hosts") or _LOCALHOST
    return f"{_LOCALHOST}127.0.1.1\t{hostname}\n"


def resolv_conf() -> str:
    """Return the host's /etc/resolv.conf, empty where it has none."""
    return _read("/etc/resolv.conf")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
