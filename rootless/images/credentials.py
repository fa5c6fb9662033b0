"""Who the user is to a registry.

Owns the reading of containers-auth.json(5) and Docker's config.json, and the
running of their credential helpers. Never writes any of them, never sends
anything anywhere. Called by the pull while it is still the user.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rootless.errors import RlError
from rootless.images.reference import DEFAULT_REGISTRY, Reference

# A helper may ask a person for a passphrase, but not for ever.
HELPER_TIMEOUT = 60
# Docker's name for its own registry in config.json and towards helpers.
_DOCKER_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password, or an identity token to be exchanged for access tokens."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


def find(reference: Reference, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Return what the first file that knows it has for the reference's repository.

    Within a file the longest key that matches counts.

    RlError if a file that exists cannot be understood or a helper cannot be run.
    """
    for file in _files(environment):
        found = _find_in(file, reference)
        if found:
            return found
    return None


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    chosen = environment.get("REGISTRY_AUTH_FILE")
    if chosen:
        yield Path(chosen)
        return
    home = Path(os.path.expanduser("~"))
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime) / "containers/auth.json"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _find_in(file: Path, reference: Reference) -> Credentials | None:
    registry = reference.registry
    try:
        content = json.loads(file.read_bytes() or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RlError(f"cannot read credentials from {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise RlError(f"cannot read credentials from {file}: it is not JSON") from None
    if not isinstance(content, dict):
        raise RlError(f"cannot read credentials from {file}: it is not a JSON object")
    helpers = {_normal(key): name for key, name in _mapping(content, "credHelpers", file).items()}
    if registry in helpers:
        return _ask_helper(helpers[registry], registry, file)
    entries = {_normal(key): value for key, value in _mapping(content, "auths", file).items()}
    for key in _keys(reference):
        found = _decode(entries.get(key), key, file)
        if found:
            return found
    store = content.get("credsStore")
    return _ask_helper(store, registry, file) if store else None


def _keys(reference: Reference) -> Iterator[str]:
    """Yield ``host/a/b``, ``host/a``, ``host``: the order of containers-auth.json(5)."""
    key = reference.name
    while key:
        yield key
        key = key.rpartition("/")[0]


def _normal(key: str) -> str:
    """Bring a key to ``host[:port][/path]``; Docker writes URLs with the API's version."""
    key = re.sub(r"^https?://", "", key).rstrip("/")
    key = re.sub(r"/v[12]$", "", key)
    host, slash, path = key.partition("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DEFAULT_REGISTRY
    return f"{host}{slash}{path}"


def _mapping(content: dict[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RlError(f"cannot read credentials from {file}: {key} is not an object")
    return value


def _decode(entry: Any, key: str, file: Path) -> Credentials | None:
    """Read one value of ``auths``; empty ones only say that a helper knows more."""
    if not isinstance(entry, dict):
        return None
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(identity_token=token)
    pair = entry.get("auth")
    if not pair:
        return None
    try:
        text = base64.b64decode(pair, validate=True).decode()
    except (TypeError, ValueError, binascii.Error):
        text = ""
    name, colon, password = text.partition(":")
    if not colon:
        raise RlError(f"cannot read credentials from {file}: auth of {key} is not base64 of a:b")
    # Docker pads with NUL.
    return Credentials(name, password.strip("\0"))


def _ask_helper(name: Any, registry: str, file: Path) -> Credentials | None:
    """Run docker-credential-NAME (github.com/docker/docker-credential-helpers)."""
    import subprocess

    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise RlError(f"{file}: {name!r} is not the name of a credential helper")
    program = f"docker-credential-{name}"
    server = _DOCKER_KEY if registry == DEFAULT_REGISTRY else registry
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            stdout=subprocess.PIPE,
            timeout=HELPER_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise RlError(f"{program}, named in {file}, is not installed") from None
    except OSError as error:
        raise RlError(f"cannot run {program}, named in {file}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise RlError(f"{program} gave no answer in {HELPER_TIMEOUT} seconds") from None
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()
        if "credentials not found" in said:
            return None
        raise RlError(f"{program} failed for {registry}: {said[:200] or 'it said nothing'}")
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise RlError(f"{program} gave no credentials that can be read") from None
    if username == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username, secret)
