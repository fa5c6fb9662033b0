"""Mirrors, proxies and TLS: who is asked, in which order, and who is trusted."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from rootless.images.repository import Repository
from tests.images.asking import BLOB, MANIFEST, MARKS, ask, blob, broken_after, fails, manifest
from tests.images.fake import Fake, Request, descriptor, serve

pytestmark = MARKS


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
