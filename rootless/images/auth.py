"""Who we are to a registry: credentials from the user's files, and the token protocol.

Owns the reading of containers-auth.json(5) and Docker's config.json, their
credential helpers, and the answer to a 401 as a generator that yields token
requests and receives responses. Does no network I/O; never sends anything
anywhere itself. Called by the pull, as the user, and by the registry client.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from rootless.errors import RlError
from rootless.images.reference import DEFAULT_REGISTRY

# What a registry may make us read: headers and token answers are small.
MAX_CHALLENGE = 8 << 10
MAX_TOKEN_ANSWER = 64 << 10
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


def find(
    registry: str, repository: str, environment: Mapping[str, str] = os.environ
) -> Credentials | None:
    """Return the credentials for a repository: those of the longest matching key, first file first.

    RlError if a file that exists cannot be understood or a helper cannot be run.
    """
    for file in _files(environment):
        found = _find_in(file, registry, repository)
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


def _find_in(file: Path, registry: str, repository: str) -> Credentials | None:
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
    for key in _keys(registry, repository):
        found = _decode(entries.get(key), key, file)
        if found:
            return found
    store = content.get("credsStore")
    return _ask_helper(store, registry, file) if store else None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """Yield ``host/a/b``, ``host/a``, ``host``: the order of containers-auth.json(5)."""
    key = f"{registry}/{repository}"
    while key != registry:
        yield key
        key = key.rpartition("/")[0]
    yield registry


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


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header, the scheme and the names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What to ask a token server: a form is POSTed, otherwise it is a GET."""

    url: str
    authorization: str | None = None
    form: str | None = None


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """What the token server said; ``body`` is cut at MAX_TOKEN_ANSWER bytes."""

    status: int
    body: bytes


_PARAMETER = re.compile(r'\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_SCHEME = re.compile(r"\s*([\w-]+)(?:\s+|,|$)")


def parse_challenges(headers: list[str]) -> list[Challenge]:
    """Read WWW-Authenticate headers (RFC 9110, section 11.6.1); what is odd ends the reading."""
    challenges = []
    for header in headers:
        if len(header) > MAX_CHALLENGE:
            continue
        at = 0
        while scheme := _SCHEME.match(header, at):
            at = scheme.end()
            parameters = {}
            while parameter := _PARAMETER.match(header, at):
                at = parameter.end()
                quoted = parameter[2]
                value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters[parameter[1].lower()] = value
            challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges


def authorize(
    headers: list[str], repository: str, credentials: Credentials | None, *, secure: bool
) -> Generator[TokenRequest, TokenResponse, str]:
    """Answer a 401: yield token requests, receive their responses, return Authorization.

    ``headers`` are the values of WWW-Authenticate, ``secure`` tells that they
    came over verified TLS; then no secret is sent to a server without it. The
    scope is the one we need, whatever the registry would like. Rules:
    distribution/docs/spec/auth. RlError if there is no way in.
    """
    for challenge in parse_challenges(headers):
        if challenge.scheme == "bearer":
            return (yield from _bearer(challenge, repository, credentials, secure))
        if challenge.scheme == "basic":
            if credentials and credentials.username:
                return credentials.basic
            raise RlError("it asks for a user name and a password")
    raise RlError("it denies access and names no way to log in that we know")


def _bearer(
    challenge: Challenge, repository: str, credentials: Credentials | None, secure: bool
) -> Generator[TokenRequest, TokenResponse, str]:
    realm = challenge.parameters.get("realm", "")
    _check_realm(realm, secure)
    query = {"scope": f"repository:{repository}:pull"}
    service = challenge.parameters.get("service")
    if service:
        query["service"] = service
    if credentials and credentials.identity_token:
        form = query | {
            "grant_type": "refresh_token",
            "client_id": "rl",
            "refresh_token": credentials.identity_token,
        }
        response = yield TokenRequest(realm, form=urlencode(form))
    else:
        if credentials:
            query["account"] = credentials.username
        separator = "&" if urlsplit(realm).query else "?"
        url = f"{realm}{separator}{urlencode(query)}"
        response = yield TokenRequest(url, credentials.basic if credentials else None)
    return f"Bearer {_token(response, urlsplit(realm).netloc, credentials)}"


def _check_realm(realm: str, secure: bool) -> None:
    try:
        parts = urlsplit(realm)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    except ValueError:
        usable = False
    if not usable or re.search(r"[^\x21-\x7e]", realm):
        raise RlError(f"it sends us for a token to {realm[:100]!r}, which is no usable address")
    if secure and parts.scheme != "https":
        raise RlError(f"it sends us for a token to {realm[:100]!r}, which is not protected by TLS")


def _token(response: TokenResponse, server: str, credentials: Credentials | None) -> str:
    if response.status in (401, 403):
        if credentials:
            raise RlError(f"{server} does not accept the user name and password")
        raise RlError(f"{server} gives no token without logging in")
    if response.status != 200:
        raise RlError(f"{server} gives no token (status {response.status})")
    try:
        answer = json.loads(response.body)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, RecursionError, AttributeError):
        token = None
    # RFC 6750, section 2.1; anything else could smuggle a header.
    if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9._~+/=:-]+", token):
        raise RlError(f"{server} gave an answer without a token")
    return token
