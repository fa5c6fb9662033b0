"""The registry client gets what a registry has, and is not harmed by one that misbehaves."""

from __future__ import annotations

import base64
import datetime
import email.utils
import json
import os
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from rootless.errors import RlError
from rootless.images import answers
from rootless.images.answers import retry_after, wait_before_next
from rootless.images.credentials import Credentials
from rootless.images.manifest import MAX_DOCUMENT
from rootless.images.reference import Reference
from rootless.images.registries import Endpoint
from rootless.images.registry import EndpointClient
from rootless.images.repository import Repository
from tests.images.fake import Fake, Request, descriptor, digest, serve

# httpx leaves its inner generators to the collector when a body is not read to its end; the
# connection is closed all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

T = TypeVar("T")

MANIFEST = b'{"schemaVersion": 2}'
BLOB = os.urandom(3_000_000)
ME = Credentials("me", "secret")
BASIC = "Basic " + base64.b64encode(b"me:secret").decode()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "FIRST_WAIT", 0.001)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a file with a key and a self-signed certificate for 127.0.0.1."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN=test -addext subjectAltName=IP:127.0.0.1 -keyout {file} -out {file}.crt",
        shell=True,
        check=True,
        capture_output=True,
    )
    with file.open("ab") as both:
        both.write(Path(f"{file}.crt").read_bytes())
    return str(file)


def ask(
    function: Callable[[Repository], Awaitable[T]],
    *hosts: str,
    credentials: Credentials | None = None,
    insecure: bool = True,
    name: str = "team/app:1",
    said: list[str] | None = None,
) -> T:
    """Return ``function(repository)`` for a repository at ``hosts``."""

    async def main() -> T:
        async with trio.open_nursery():
            tell = (said if said is not None else []).append
            clients = [
                EndpointClient(
                    Endpoint(Reference.parse(f"{host}/{name}"), insecure, False), credentials, tell
                )
                for host in hosts
            ]
            try:
                return await function(Repository(clients))
            finally:
                for client in clients:
                    await client.__aexit__(None, None, None)

    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def manifest(*hosts: str, **options: object) -> bytes:
    return ask(lambda repository: repository.manifest(), *hosts, **options)  # type: ignore[arg-type]


def blob(*hosts: str, data: bytes = BLOB, **options: object) -> bytes:
    """Return what comes for the blob whose digest is that of ``data``."""
    received = bytearray()

    async def receive(chunk: bytes) -> None:
        received.extend(chunk)

    ask(lambda repository: repository.blob(descriptor(data), receive), *hosts, **options)  # type: ignore[arg-type]
    return bytes(received)


def fails(reason: str, function: Callable[..., bytes], *hosts: str, **options: object) -> str:
    """Check that ``function`` is refused for a reason, in one line; return it."""
    with pytest.raises(RlError, match=reason) as refusal:
        function(*hosts, **options)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


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


# Blobs


def test_a_blob_comes_whole() -> None:
    with serve(lambda request: request.serve(BLOB)) as fake:
        assert blob(fake.host) == BLOB
    assert fake.paths() == [f"/v2/team/app/blobs/{digest(BLOB)}"]


def broken_after(*lengths: int) -> Callable[[Request], None]:
    """Return a registry that hangs up after so many bytes, each time another number."""

    def behaviour(request: Request) -> None:
        if request.count > len(lengths):
            return request.serve(BLOB)
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        where = {"content_range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"} if start else {}
        request.begin(206 if start else 200, len(BLOB) - start, **where)
        request.send(BLOB[start : start + lengths[request.count - 1]])
        return request.hang_up()

    return behaviour


def test_a_broken_transfer_is_resumed_where_it_broke() -> None:
    with serve(broken_after(1_000_000, 0, 500_000)) as fake:
        assert blob(fake.host) == BLOB
    ranges = [request.headers.get("range") for request in fake.requests]
    assert ranges == [None, "bytes=1000000-", "bytes=1000000-", "bytes=1500000-"]


def test_a_registry_without_ranges_starts_over_and_nothing_comes_twice() -> None:
    def behaviour(request: Request) -> None:
        if request.count > 1:
            return request.answer(200, BLOB)
        request.begin(200, len(BLOB))
        request.send(BLOB[:1_234_567])
        return request.hang_up()

    with serve(behaviour) as fake:
        assert blob(fake.host) == BLOB


def test_another_range_than_asked_for_is_refused() -> None:
    def behaviour(request: Request) -> None:
        if request.count > 1:
            return request.answer(206, BLOB[5:], content_range=f"bytes 5-{len(BLOB)}/{len(BLOB)}")
        request.begin(200, len(BLOB))
        request.send(BLOB[:10])
        return request.hang_up()

    with serve(behaviour) as fake:
        fails("another range", blob, fake.host)


def test_a_blob_longer_than_announced_is_not_read_on() -> None:
    with serve(lambda request: request.answer(200, BLOB + b"more")) as fake:
        fails(f"more than a blob's {len(BLOB)} bytes", blob, fake.host)


def test_a_transfer_that_ends_too_early_is_given_up_in_the_end() -> None:
    with serve(lambda request: request.answer(200, BLOB[:1000])) as fake:
        fails("ended the transfer too early", blob, fake.host)
    assert len(fake.requests) == answers.ATTEMPTS


def test_a_connection_that_breaks_after_the_last_byte_does_no_harm() -> None:
    def behaviour(request: Request) -> None:
        request.begin(200, len(BLOB) + 1)
        request.send(BLOB)
        request.hang_up()

    with serve(behaviour) as fake:
        assert blob(fake.host) == BLOB
    assert len(fake.requests) == 1


def test_a_transfer_that_moves_on_between_breaks_is_not_given_up() -> None:
    data = bytes(9 << 20)
    piece = answers.WORTHWHILE + 1

    def behaviour(request: Request) -> None:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        where = {"content_range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        request.begin(206 if start else 200, len(data) - start, **where)
        request.send(data[start : start + piece])
        request.hang_up()

    with serve(behaviour) as fake:
        assert blob(fake.host, data=data) == data
    assert len(fake.requests) > answers.ATTEMPTS


# Retries


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_bad_moment_is_waited_for(status: int) -> None:
    def behaviour(request: Request) -> None:
        request.answer(status if request.count < 3 else 200, MANIFEST)

    with serve(behaviour) as fake:
        assert manifest(fake.host) == MANIFEST
    assert len(fake.requests) == 3


def test_a_registry_that_stays_bad_is_given_up_with_its_words() -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit."}]}'
    with serve(lambda request: request.answer(429, body)) as fake:
        fails(r"429 Too Many Requests \(You have reached your limit\.\)", manifest, fake.host)
    assert len(fake.requests) == answers.ATTEMPTS


def test_a_wait_that_the_registry_asks_for_is_kept_and_told() -> None:
    def behaviour(request: Request) -> None:
        if request.count == 1:
            return request.answer(429, retry_after="1")
        return request.answer(200, MANIFEST)

    said: list[str] = []
    with serve(behaviour) as fake:
        assert manifest(fake.host, said=said) == MANIFEST
    assert said == [f"{fake.host}: it answers 429 Too Many Requests; next attempt in 1 s"]


def test_an_unbearable_wait_is_not_begun() -> None:
    with serve(lambda request: request.answer(429, retry_after="86400")) as fake:
        fails("429", manifest, fake.host)
    assert len(fake.requests) == 1


def test_a_registry_that_was_never_there_is_not_waited_for(
    dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "FIRST_WAIT", 2.0)
    said: list[str] = []
    fails("Connection refused", manifest, dead, said=said)
    assert said == []


def test_waits_grow_up_to_a_bound_and_never_fall_below_what_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "FIRST_WAIT", 1.0)
    for attempt in range(1, answers.ATTEMPTS):
        wait = wait_before_next(attempt, None)
        assert wait is not None
        assert 2.0 ** (attempt - 2) <= wait <= 2.0 ** (attempt - 1)
        assert wait_before_next(attempt, 50) == 50
    assert wait_before_next(answers.ATTEMPTS, None) is None
    assert wait_before_next(1, answers.LONGEST_WAIT + 1) is None


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    now = datetime.datetime.now(datetime.UTC)
    later = retry_after(email.utils.format_datetime(now + datetime.timedelta(hours=1), usegmt=True))
    assert later is not None
    assert 3000 < later <= 3600
    assert retry_after(email.utils.format_datetime(now - datetime.timedelta(hours=1))) == 0
    assert retry_after("7") == 7
    for odd in (None, "", "-1", "soon", "1e9", "9" * 5000, "Mon, 99 Foo 0000 00:00:00 GMT"):
        assert retry_after(odd) is None


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


def test_authorization_does_not_leave_the_registry() -> None:
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


def test_a_resumed_transfer_goes_through_the_redirect_again() -> None:
    with serve(broken_after(1000)) as storage:
        target = f"http://{storage.host}/blob"
        with serve(lambda request: request.answer(307, location=target)) as fake:
            assert blob(fake.host) == BLOB
    assert [request.headers.get("range") for request in storage.requests] == [None, "bytes=1000-"]


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


def test_a_redirect_away_from_tls_is_refused(
    certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    with serve(lambda request: request.answer(200, MANIFEST)) as plain:
        target = f"http://{plain.host}/"
        with serve(lambda request: request.answer(302, location=target), certificate) as fake:
            fails("without TLS", manifest, fake.host, insecure=False)
            assert plain.requests == []
            assert manifest(fake.host, insecure=True) == MANIFEST


# TLS


def test_a_certificate_nobody_vouches_for_is_refused_unless_the_registry_is_insecure(
    certificate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    with serve(lambda request: request.answer(200, MANIFEST), certificate) as fake:
        fails("certificate is not trusted", manifest, fake.host, insecure=False)
        assert manifest(fake.host, insecure=True) == MANIFEST
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        assert manifest(fake.host, insecure=False) == MANIFEST
    assert len(fake.requests) == 2


def test_a_registry_without_tls_is_refused_unless_it_is_insecure() -> None:
    with serve(lambda request: request.answer(200, MANIFEST)) as fake:
        fails("speaks no TLS.*insecure = true", manifest, fake.host, insecure=False)
        assert manifest(fake.host) == MANIFEST


# Several endpoints


@pytest.fixture
def dead() -> str:
    """Return a host where nobody listens."""
    with serve(lambda request: None) as gone:
        return gone.host


def test_the_next_endpoint_is_asked_when_one_fails(dead: str) -> None:
    with (
        serve(lambda request: request.answer(404)) as empty,
        serve(lambda request: request.answer(200, MANIFEST)) as full,
    ):
        assert manifest(dead, empty.host, full.host) == MANIFEST


def test_what_every_endpoint_said_is_told_in_one_line(dead: str) -> None:
    with serve(lambda request: request.answer(404)) as empty:
        said = fails("; ", manifest, dead, empty.host, "no-such-host.invalid")
    first, second, third = said.split("; ")
    assert first == f"{dead}: Connection refused"
    assert second == f"{empty.host}: it has no team/app:1"
    assert third.startswith("no-such-host.invalid: ")


def test_who_reaches_nobody_is_told_of_a_way_out(dead: str) -> None:
    remedy = (
        r"\(no way out\? set https_proxy, or a mirror in ~/.config/containers/registries.conf\)$"
    )
    fails(remedy, manifest, dead, "no-such-host.invalid", insecure=False)
    assert "way out" not in fails("Connection refused", manifest, dead)


@pytest.mark.parametrize("form", ["http://me:secret@{}", "{}"])
def test_a_proxy_that_is_not_there_is_named_without_its_login(
    dead: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", form.format(dead))
    said = fails("Connection refused", manifest, "no-such-host.invalid", insecure=False)
    assert f"(proxy http://{dead})" in said
    assert "secret" not in said
    monkeypatch.setenv("no_proxy", "no-such-host.invalid")
    assert "proxy http" not in fails("^", manifest, "no-such-host.invalid", insecure=False)


def test_a_registry_that_is_not_trusted_was_reached(certificate: str) -> None:
    with serve(lambda request: request.answer(200, MANIFEST), certificate) as fake:
        said = fails("not trusted", manifest, fake.host, "no-such-host.invalid", insecure=False)
    assert "way out" not in said


def test_the_endpoint_that_had_the_manifest_is_asked_for_the_blobs() -> None:
    async def both(repository: Repository) -> None:
        async def receive(chunk: bytes) -> None:
            pass

        await repository.manifest()
        await repository.blob(descriptor(BLOB), receive)

    def behaviour(request: Request) -> None:
        request.answer(200, BLOB if "blobs" in request.path else MANIFEST)

    with serve(lambda request: request.answer(404)) as empty, serve(behaviour) as full:
        ask(both, empty.host, full.host)
    assert len(empty.requests) == 1


def test_a_transfer_that_one_endpoint_breaks_off_is_finished_by_the_next() -> None:
    def breaks(request: Request) -> None:
        if request.count > 1:
            return request.answer(404)
        return broken_after(1000)(request)

    with serve(breaks) as first, serve(lambda request: request.serve(BLOB)) as second:
        assert blob(first.host, second.host) == BLOB
    assert second.requests[0].headers["range"] == "bytes=1000-"


# Proxies


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with serve(lambda request: request.answer(200, MANIFEST)) as fake:
        monkeypatch.setenv("http_proxy", f"http://{fake.host}")
        yield fake


def test_the_proxy_of_the_environment_is_used_but_not_for_loopback(proxy: Fake) -> None:
    with serve(lambda request: request.answer(200, b"direct")) as fake:
        assert manifest(fake.host) == b"direct"
    assert proxy.requests == []
    assert manifest("registry.invalid") == MANIFEST
    assert proxy.paths() == ["http://registry.invalid/v2/team/app/manifests/1"]


def test_a_proxy_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "nonsense://x")
    fails("cannot use the proxy that the environment names", manifest, "registry.invalid")


def test_a_machine_without_authorities_can_still_be_told_to_be_insecure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssl, "create_default_context", None)
    with serve(lambda request: request.answer(200, MANIFEST)) as fake:
        assert manifest(fake.host) == MANIFEST
