"""A 401 is answered as the protocol says, and nothing is sent to where it does not belong."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import RlError
from rootless.images import auth
from rootless.images.auth import TokenRequest, TokenResponse, authorize
from rootless.images.credentials import Credentials

TOKEN_SERVER = 'Bearer realm="https://auth.example.com/token",service="registry.example.com"'
Flow = Generator[TokenRequest, TokenResponse, str]


def result(flow: Flow, response: TokenResponse) -> str:
    """Return the Authorization that the flow ends with after ``response``."""
    with pytest.raises(StopIteration) as finished:
        flow.send(response)
    return str(finished.value.value)


def answer(content: Any, status: int = 200) -> TokenResponse:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return TokenResponse(status, body)


def test_an_anonymous_token_is_asked_for_our_own_scope() -> None:
    header = TOKEN_SERVER + ',scope="repository:other/secret:pull,push,delete"'
    flow = authorize([header], "library/alpine", None, secure=True)
    request = next(flow)
    assert request.authorization is None
    assert request.form is None
    assert request.url.startswith("https://auth.example.com/token?")
    assert parse_qs(urlsplit(request.url).query) == {
        "scope": ["repository:library/alpine:pull"],
        "service": ["registry.example.com"],
    }
    assert result(flow, answer({"token": "abc.def"})) == "Bearer abc.def"


def test_a_password_goes_to_the_token_server_as_basic() -> None:
    flow = authorize([TOKEN_SERVER], "a/b", Credentials("me", "s:cret"), secure=True)
    request = next(flow)
    assert request.authorization == "Basic " + base64.b64encode(b"me:s:cret").decode()
    assert parse_qs(urlsplit(request.url).query)["account"] == ["me"]
    assert "cret" not in request.url
    assert result(flow, answer({"access_token": "t"})) == "Bearer t"


def test_an_identity_token_is_exchanged_in_a_form() -> None:
    flow = authorize([TOKEN_SERVER], "a/b", Credentials(identity_token="ID&"), secure=True)
    request = next(flow)
    assert request.url == "https://auth.example.com/token"
    assert request.authorization is None
    assert request.form is not None
    form = parse_qs(request.form)
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["ID&"])
    assert result(flow, answer({"access_token": "t"})) == "Bearer t"


def test_a_realm_with_a_query_keeps_it() -> None:
    request = next(authorize(['Bearer realm="https://a.org/t?x=1"'], "a/b", None, secure=True))
    assert parse_qs(urlsplit(request.url).query)["x"] == ["1"]


def no_request(header: str, credentials: Credentials | None) -> str:
    with pytest.raises(StopIteration) as finished:
        next(authorize([header], "a/b", credentials, secure=True))
    return str(finished.value.value)


def test_basic_is_answered_with_the_password() -> None:
    expected = "Basic " + base64.b64encode(b"me:pw").decode()
    assert no_request('Basic realm="Registry Realm"', Credentials("me", "pw")) == expected
    assert no_request("basic", Credentials("me", "pw")) == expected


@pytest.mark.parametrize("credentials", [None, Credentials(identity_token="x")])
def test_basic_without_a_password_says_what_is_needed(credentials: Credentials | None) -> None:
    with pytest.raises(RlError, match="user name and a password"):
        next(authorize(["Basic realm=x"], "a/b", credentials, secure=True))


def test_the_first_scheme_we_know_is_taken() -> None:
    headers = ["Negotiate", f'Digest realm="a, b", nonce="\\"", {TOKEN_SERVER}, Basic realm="x"']
    request = next(authorize(headers, "a/b", None, secure=True))
    assert request.url.startswith("https://auth.example.com/token?")


@pytest.mark.parametrize(
    ("realm", "reason"),
    [
        ("http://auth.example.com/token", "not protected by TLS"),
        ("file:///etc/passwd", "no usable address"),
        ("ftp://h/x", "no usable address"),
        ("https://", "no usable address"),
        ("https://user:pw@h/x", "no usable address"),
        ("https://h/\\\r\\\nX: y", "no usable address"),
        ("https://[::1/x", "no usable address"),
        ("", "no usable address"),
        ("/token", "no usable address"),
    ],
)
def test_no_secret_is_sent_to_a_realm_that_is_not_safe(realm: str, reason: str) -> None:
    flow = authorize([f'Bearer realm="{realm}"'], "a/b", Credentials("me", "pw"), secure=True)
    with pytest.raises(RlError, match=reason):
        next(flow)


def test_an_insecure_registry_may_have_an_insecure_token_server() -> None:
    flow = authorize(['Bearer realm="http://h:1/t"'], "a/b", None, secure=False)
    assert next(flow).url.startswith("http://h:1/t?")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (answer({}, status=401), "does not accept the user name and password"),
        (answer({}, status=403), "does not accept the user name and password"),
        (answer({}, status=302), r"gives no token \(status 302\)"),
        (answer(b"<html>"), "an answer without a token"),
        (answer({}), "an answer without a token"),
        (answer([]), "an answer without a token"),
        (answer({"token": ["x"]}), "an answer without a token"),
        (answer({"token": "x\r\nHost: evil"}), "an answer without a token"),
        (answer(b"[" * 50_000), "an answer without a token"),
    ],
)
def test_a_token_server_that_gives_no_token_is_named(response: TokenResponse, reason: str) -> None:
    flow = authorize([TOKEN_SERVER], "a/b", Credentials("me", "pw"), secure=True)
    next(flow)
    with pytest.raises(RlError, match=f"auth.example.com.*{reason}"):
        flow.send(response)


def test_headers_without_a_way_in_are_said_to_have_none() -> None:
    with pytest.raises(RlError, match="names no way to log in"):
        next(authorize(["Negotiate", "x" * 100_000, ""], "a/b", None, secure=True))


@given(st.lists(st.text(st.sampled_from('Bearer Basic realm="\\,= \t'), max_size=200), max_size=4))
def test_any_header_is_read_to_its_end(headers: list[str]) -> None:
    for challenge in auth.parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
