"""The registry client gets what a registry has, and is not harmed by one that misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from rootless.images.credentials import Credentials
from rootless.images.document import MAX_DOCUMENT
from rootless.images.registry import EndpointClient
from rootless.images.repository import Repository
from tests.images.asking import BASIC, BLOB, MANIFEST, MARKS, ME, ask, blob, fails, manifest
from tests.images.fake import Request, digest, serve

pytestmark = MARKS


# Manifests


def test_a_manifest_is_asked_for_by_tag_in_every_type_we_know() -> None:
    with serve(lambda request: request.answer(200, MANIFEST)) as fake:
        assert manifest(fake.host) == MANIFEST
    (request,) = fake.requests
    assert request.path == "/v2/team/app/manifests/1"
    assert request.headers["accept"].split(", ") == [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
    assert request.headers["accept-encoding"] == "identity"
    assert "authorization" not in request.headers


def test_a_manifest_that_is_not_what_its_digest_says_is_refused() -> None:
    name = f"team/app@{digest(MANIFEST)}"
    with serve(lambda request: request.answer(200, MANIFEST)) as fake:
        assert manifest(fake.host, name=name) == MANIFEST
    header = {"docker_content_digest": digest(MANIFEST)}
    with serve(lambda request: request.answer(200, b"{}", **header)) as fake:
        fails("does not have that digest", manifest, fake.host, name=name)


def test_the_digest_that_a_registry_claims_decides_nothing() -> None:
    header = {"docker_content_digest": digest(b"other")}
    with serve(lambda request: request.answer(200, MANIFEST, **header)) as fake:
        assert manifest(fake.host) == MANIFEST


def test_a_huge_manifest_is_not_read_to_its_end() -> None:
    def endless(request: Request) -> None:
        request.begin(200, 1 << 40)
        while True:
            request.send(b" " * 65536)

    with serve(endless) as fake:
        fails("larger than 4 MiB", manifest, fake.host)
    with serve(lambda request: request.answer(200, b" " * MAX_DOCUMENT)) as fake:
        assert len(manifest(fake.host)) == MAX_DOCUMENT


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"", "it has no team/app:1$"),
        (401, b"", "names no way to log in.*team/app does not exist there, or needs a login"),
        (403, b'{"errors":[{"code":"DENIED"}]}', r"access denied \(DENIED\).*podman login"),
        (400, b'{"errors":[{"message":"a\\r\\n\\u001b[31m' + b"b" * 999 + b'"}]}', "a \\[31mbbb"),
        (418, b"[" * 99999, "it answers 418"),
    ],
)
def test_a_refusal_is_said_in_plain_words(status: int, body: bytes, reason: str) -> None:
    with serve(lambda request: request.answer(status, body)) as fake:
        said = fails(f"^{fake.host}: .*{reason}", manifest, fake.host)
        assert len(said) < 400
    assert all(request.count == 1 for request in fake.requests)


# Authentication


def token_registry(data: bytes, tokens: list[str]) -> Callable[[Request], None]:
    """Return a registry and its token server; it takes the last of ``tokens`` only."""

    def behaviour(request: Request) -> None:
        if request.path.startswith("/token"):
            tokens.append(f"token-{len(tokens)}")
            return request.answer(200, json.dumps({"token": tokens[-1]}).encode())
        if tokens and request.headers.get("authorization") == f"Bearer {tokens[-1]}":
            return request.serve(data)
        realm = f'Bearer realm="http://{request.headers["host"]}/token",service="s"'
        return request.answer(401, www_authenticate=realm)

    return behaviour


def test_a_token_is_fetched_once_and_used_again() -> None:
    async def twice(repository: Repository) -> bytes:
        return await repository.manifest() + await repository.manifest(digest(MANIFEST))

    with serve(token_registry(MANIFEST, [])) as fake:
        assert ask(twice, fake.host, credentials=ME) == MANIFEST * 2
    assert fake.paths() == [
        "/v2/team/app/manifests/1",
        "/token?scope=repository%3Ateam%2Fapp%3Apull&service=s&account=me",
        "/v2/team/app/manifests/1",
        f"/v2/team/app/manifests/{digest(MANIFEST)}",
    ]
    assert fake.requests[1].headers["authorization"] == BASIC
    assert fake.requests[2].headers["authorization"] == "Bearer token-0"


def test_a_token_that_expired_is_replaced() -> None:
    tokens: list[str] = []

    async def expiring(repository: Repository) -> bytes:
        await repository.manifest()
        tokens.append("changed meanwhile")
        return await repository.manifest()

    with serve(token_registry(MANIFEST, tokens)) as fake:
        assert ask(expiring, fake.host) == MANIFEST
    assert sum(path.startswith("/token") for path in fake.paths()) == 2


def test_a_token_that_does_not_help_ends_in_a_refusal() -> None:
    def behaviour(request: Request) -> None:
        if request.path.startswith("/token"):
            return request.answer(200, b'{"token": "useless"}')
        realm = f'Bearer realm="http://{request.headers["host"]}/token"'
        return request.answer(401, www_authenticate=realm)

    with serve(behaviour) as fake:
        fails("access denied: team/app does not exist there, or needs a login", manifest, fake.host)
        fails("saved login for .* may not be allowed", manifest, fake.host, credentials=ME)


def test_a_token_server_in_a_bad_moment_is_asked_again() -> None:
    tokens: list[str] = []
    good = token_registry(MANIFEST, tokens)

    def behaviour(request: Request) -> None:
        bad = request.path.startswith("/token") and request.count == 1
        request.answer(503) if bad else good(request)

    with serve(behaviour) as fake:
        assert manifest(fake.host) == MANIFEST


def test_a_redirect_of_the_token_server_is_not_followed_with_our_password() -> None:
    with serve(lambda request: request.answer(200, b'{"token": "x"}')) as thief:

        def behaviour(request: Request) -> None:
            if request.path.startswith("/token"):
                return request.answer(307, location=f"http://{thief.host}/")
            realm = f'Bearer realm="http://{request.headers["host"]}/token"'
            return request.answer(401, www_authenticate=realm)

        with serve(behaviour) as fake:
            fails(r"gives no token \(status 307\)", manifest, fake.host, credentials=ME)
    assert thief.requests == []


def test_basic_is_given_to_who_asks_for_it() -> None:
    def behaviour(request: Request) -> None:
        if request.headers.get("authorization") == BASIC:
            return request.answer(200, MANIFEST)
        return request.answer(401, www_authenticate='Basic realm="x"')

    with serve(behaviour) as fake:
        assert manifest(fake.host, credentials=ME) == MANIFEST
        fails("user name and a password: team/app does not exist", manifest, fake.host)
        fails("access denied", manifest, fake.host, credentials=Credentials("me", "wrong"))


# Redirects


def test_authorization_does_not_leave_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda request: request.serve(BLOB)) as storage:

        def behaviour(request: Request) -> None:
            if request.headers.get("authorization") != BASIC:
                return request.answer(401, www_authenticate="Basic")
            if "blobs" in request.path:
                return request.answer(307, location="/moved")
            return request.answer(307, location=f"http://{storage.host}/signed?x=1")

        with serve(behaviour) as fake:
            assert blob(fake.host, credentials=ME) == BLOB
    assert fake.paths()[-1] == "/moved"
    (request,) = storage.requests
    assert "authorization" not in request.headers
    assert request.path == "/signed?x=1"
    # It would, if every server were taken for the registry.
    with serve(lambda request: request.serve(BLOB)) as storage, serve(behaviour) as fake:
        monkeypatch.setattr(EndpointClient, "_is_ours", lambda *_: True)
        assert blob(fake.host, credentials=ME) == BLOB
    assert storage.requests[0].headers["authorization"] == BASIC


def test_only_the_registry_itself_is_told_who_we_are() -> None:
    def asks(request: Request) -> None:
        realm = f'Bearer realm="http://{request.headers["host"]}/token"'
        request.answer(401, www_authenticate=f'{realm}, Basic realm="x"')

    with serve(asks) as thief:
        target = f"http://{thief.host}/blob"
        with serve(lambda request: request.answer(307, location=target)) as fake:
            fails("access denied", blob, fake.host, credentials=ME)
    assert thief.paths() == ["/blob"]
    assert "authorization" not in thief.requests[0].headers


def test_a_server_that_the_registry_sends_us_to_is_named_when_it_fails(dead: str) -> None:
    host = dead.partition(":")[0]
    realm = f'Bearer realm="http://{dead}/token"'
    with serve(lambda request: request.answer(401, www_authenticate=realm)) as fake:
        fails(f"token server {host}: Connection refused", manifest, fake.host)
    with serve(lambda request: request.answer(307, location=f"http://{dead}/")) as fake:
        fails(f"it redirects to {host}: Connection refused", manifest, fake.host)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/again", "in a circle"),
        ("file:///etc/passwd", "without TLS"),
        ("gopher://x/", "without TLS"),
        ("http://a b\x7f/", "[Ii]nvalid URL"),
    ],
)
def test_a_redirect_to_nowhere_good_is_refused(location: str, reason: str) -> None:
    with serve(lambda request: request.answer(302, location=location)) as fake:
        fails(reason, manifest, fake.host)
