"""The answer to a registry's 401: RFC 9110's challenges and Docker's token protocol.

Owns the flow as a generator that yields token requests and receives responses,
and what we agree to send where. Does no I/O: the registry client carries it out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from rootless.errors import RlError
from rootless.images.credentials import Credentials

# What a registry may make us read: headers and token answers are small.
MAX_CHALLENGE = 8 << 10
MAX_TOKEN_ANSWER = 64 << 10


class Challenge(NamedTuple):
    """One challenge of a WWW-Authenticate header, the scheme and the names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


class TokenRequest(NamedTuple):
    """What to ask a token server: a form is POSTed, otherwise it is a GET."""

    url: str
    authorization: str | None = None
    form: str | None = None


class TokenResponse(NamedTuple):
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
