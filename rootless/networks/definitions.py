"""The user networks that are defined, on disk.

Owns ROOT/networks/NAME.json. A definition appears by rename, never changes, and goes by unlink;
the caller holds the lock of containers, so that none which has it can appear or go meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from rootless.errors import NetworkNotFound, RlError
from rootless.files import read_text, replace_file
from rootless.networks.definition import Definition, IPNetwork, parse

_SUFFIX: Final = ".json"
_LARGEST: Final = 1 << 20
# Fewer characters of an ID may be a person's slip.
_SHORTEST_ID: Final = 1


class Definitions:
    """The definitions below one state root."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "networks"

    def names(self) -> list[str]:
        """Return the names of all, those that are damaged too."""
        try:
            files = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(
            file.removesuffix(_SUFFIX)
            for file in files
            if file.endswith(_SUFFIX) and not file.startswith(".")
        )

    def get(self, name: str) -> Definition:
        """Return the network of this name, or whose ID is or uniquely starts with it.

        NetworkNotFound, or RlError for one that is damaged.
        """
        if name in self.names():
            return self._read(name)
        matches = [one for one in self.list() if len(name) >= _SHORTEST_ID]
        matches = [one for one in matches if one.id.startswith(name)]
        if len(matches) > 1:
            raise RlError(f"{name} is ambiguous: the IDs of {len(matches)} networks start so")
        if not matches:
            raise NetworkNotFound(f"no such network: {name}")
        return matches[0]

    def add(self, definition: Definition) -> None:
        """Write a definition, whose name is free."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path(definition.name), json.dumps(definition._asdict()).encode())

    def remove(self, name: str) -> None:
        """Remove the definition of this very name, be it damaged."""
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()

    def list(self) -> list[Definition]:
        """Return all by name; damaged ones are left out."""
        found = []
        for name in self.names():
            with contextlib.suppress(RlError):
                found.append(self._read(name))
        return found

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}{_SUFFIX}"

    def _read(self, name: str) -> Definition:
        path = self._path(name)
        try:
            # Not to wait for a FIFO, or to follow a link.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ValueError("it is no file")
                found = parse(json.loads(file.read(_LARGEST)))
            if found.name != name:
                raise ValueError(f"it is that of {found.name}")
        except FileNotFoundError:
            raise NetworkNotFound(f"no such network: {name}") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, RlError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise RlError(
                f"the definition of the network {name} is damaged: {why} "
                f"(rl network rm {name} removes it)"
            ) from None
        return found


def taken_subnets(definitions: Definitions) -> list[IPNetwork]:
    """Return the subnets that no new network may overlap: the host's, and those of the others."""
    others = [ip_network(pool.subnet) for one in definitions.list() for pool in one.pools]
    return [*others, *_host_routes()]


def _host_routes() -> list[IPNetwork]:
    """Return where the host has routes to, but for the default and addresses of no network."""
    found: list[IPNetwork] = []
    # proc(5): interface, destination, gateway, flags, …, mask; in the byte order of this machine.
    for line in read_text("/proc/net/route").splitlines()[1:]:
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            address, mask = (_ipv4(fields[at]) for at in (1, 7))
            found.append(ip_network(f"{address}/{mask}"))
    for line in read_text("/proc/net/ipv6_route").splitlines():
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            address6 = bytes.fromhex(fields[0])
            if address6[0] not in (0xFE, 0xFF):
                found.append(ip_network((address6, int(fields[1], 16))))
    return [network for network in found if network.prefixlen > 0]


def _ipv4(word: str) -> str:
    import socket
    import sys

    return socket.inet_ntoa(int(word, 16).to_bytes(4, sys.byteorder))
