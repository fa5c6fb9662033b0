"""Where an image is really fetched from: containers' registries.conf, version 2.

Owns the reading of that file and its drop-ins, and the pure decision which
endpoints serve a reference, in which order. Never touches the network. Called
once per pull. Rules: containers-registries.conf(5), containers-registries.conf.d(5).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rootless.errors import RlError
from rootless.images.reference import Reference

SYSTEM_FILE = Path("/etc/containers/registries.conf")

# What a mirror is asked for: the values of pull-from-mirror.
PULL_FROM_MIRROR = ("all", "digest-only", "tag-only")


class Mirror(NamedTuple):
    """A second place for what a registry serves."""

    location: str
    insecure: bool
    pull_from_mirror: str


class Registry(NamedTuple):
    """One [[registry]] table; ``location`` is empty where only a ``*.`` prefix is given."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]
    file: Path


class Endpoint(NamedTuple):
    """A place to try: the reference as that place knows it."""

    reference: Reference
    insecure: bool
    is_mirror: bool


def endpoints(reference: Reference, registries: Iterable[Registry]) -> list[Endpoint]:
    """Return the places that serve ``reference``, first choice first.

    RlError if the configuration blocks it. As Docker, a registry on loopback
    counts as insecure without being named.
    """
    name = str(reference)
    matches = [registry for registry in registries if _match(name, registry.prefix)]
    if not matches:
        return [_endpoint(reference, insecure=False, is_mirror=False)]
    best = max(matches, key=lambda registry: len(registry.prefix))
    if best.blocked:
        raise RlError(
            f"registry {reference.registry} is blocked for {reference.familiar_name} by {best.file}"
        )
    wanted = ("all", "digest-only" if reference.digest else "tag-only")
    places = [
        _endpoint(_relocate(name, best, mirror.location), mirror.insecure, is_mirror=True)
        for mirror in best.mirrors
        if mirror.pull_from_mirror in wanted
    ]
    primary = _relocate(name, best, best.location) if best.location else reference
    return [*places, _endpoint(primary, best.insecure, is_mirror=False)]


def _endpoint(reference: Reference, insecure: bool, is_mirror: bool) -> Endpoint:
    return Endpoint(reference, insecure or is_loopback(reference.registry), is_mirror)


def is_loopback(registry: str) -> bool:
    """Tell whether ``host[:port]`` is this machine by its very name."""
    host = registry if registry.endswith("]") else registry.rpartition(":")[0] or registry
    labels = host.split(".")
    is_127 = (
        len(labels) == 4
        and labels[0] == "127"
        and all(label.isascii() and label.isdecimal() for label in labels)
    )
    return is_127 or host.lower() in ("localhost", "[::1]")


def _match(name: str, prefix: str) -> int:
    """Return how much of ``name`` the prefix covers, 0 if it does not match."""
    if prefix.startswith("*."):
        host = name.partition("/")[0].rpartition(":")[0] or name.partition("/")[0]
        return len(host) if host.endswith(prefix[1:]) else 0
    # After a host, a colon would begin a port: another registry.
    separators = ("", "/", ":", "@") if "/" in prefix else ("/",)
    if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in separators:
        return len(prefix)
    return 0


def _relocate(name: str, registry: Registry, location: str) -> Reference:
    text = location + name[_match(name, registry.prefix) :]
    try:
        moved = Reference.parse(text)
    except RlError as error:
        raise RlError(f"{registry.file}: location {location!r} does not fit: {error}") from None
    host = text.partition("/")[0]
    if moved.registry != host and host != "index.docker.io":
        raise RlError(
            f"{registry.file}: location {location!r} does not begin with a host "
            "(a host has a dot or a port, or is localhost)"
        )
    return moved


def load(environment: Mapping[str, str] = os.environ) -> tuple[Registry, ...]:
    """Read this user's configuration; RlError names the file that cannot be used."""
    found: dict[str, Registry] = {}
    for file in _files(environment):
        for registry in _read(file):
            found[registry.prefix] = registry
    return tuple(found.values())


def _files(environment: Mapping[str, str]) -> list[Path]:
    """Return the files that count, the one with the last word last."""
    home = Path(environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    own = home / "containers/registries.conf"
    chosen = environment.get("CONTAINERS_REGISTRIES_CONF")
    if chosen and not os.path.exists(chosen):
        raise RlError(f"{chosen}, named by CONTAINERS_REGISTRIES_CONF, does not exist")
    if not chosen and os.path.exists(own):
        # The user's own file stands for all of the system's, drop-ins included.
        return [own, *_drop_ins(own)]
    main = Path(chosen) if chosen else SYSTEM_FILE
    return [*([main] if main.exists() else []), *_drop_ins(SYSTEM_FILE), *_drop_ins(own)]


def _drop_ins(file: Path) -> list[Path]:
    return sorted(file.with_name(f"{file.name}.d").glob("*.conf"))


def _read(file: Path) -> list[Registry]:
    try:
        with file.open("rb") as stream:
            content = tomllib.load(stream)
    except OSError as error:
        raise RlError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RlError(f"cannot read {file}: {error}") from None
    if "registries" in content:
        raise RlError(f"{file} has the old form, version 1 (see containers-registries.conf(5))")
    return [_registry(table, file) for table in _tables(content, "registry", file)]


def _registry(table: dict[str, Any], file: Path) -> Registry:
    location = _location(table, file)
    prefix = str(table.get("prefix") or location).rstrip("/")
    wildcard = prefix.startswith("*.")
    if "*" in prefix[wildcard:] or (wildcard and ("/" in prefix or ":" in prefix)):
        raise RlError(f"{file}: prefix {prefix!r}: '*.' stands before a host's name only")
    if not prefix or not (location or wildcard):
        raise RlError(f"{file}: a [[registry]] has neither prefix nor location")
    digests_only = _flag(table, "mirror-by-digest-only", file)
    mirrors = tuple(
        _mirror(mirror, digests_only, file) for mirror in _tables(table, "mirror", file)
    )
    return Registry(
        prefix,
        location,
        _flag(table, "insecure", file),
        _flag(table, "blocked", file),
        mirrors,
        file,
    )


def _mirror(table: dict[str, Any], digests_only: bool, file: Path) -> Mirror:
    location = _location(table, file)
    if not location:
        raise RlError(f"{file}: a [[registry.mirror]] has no location")
    pull = table.get("pull-from-mirror") or "all"
    if pull not in PULL_FROM_MIRROR:
        raise RlError(f"{file}: pull-from-mirror is one of {', '.join(PULL_FROM_MIRROR)}")
    if digests_only:
        pull = "digest-only"
    return Mirror(location, _flag(table, "insecure", file), pull)


def _location(table: dict[str, Any], file: Path) -> str:
    location = table.get("location") or ""
    if not isinstance(location, str) or "://" in location:
        raise RlError(f"{file}: location {location!r} is not host[:port][/path]")
    return location.rstrip("/")


def _flag(table: dict[str, Any], key: str, file: Path) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise RlError(f"{file}: {key} is true or false, not {value!r}")
    return value


def _tables(table: dict[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RlError(f"{file}: {key} is written as [[…{key}]]")
    return value
