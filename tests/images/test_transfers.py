"""Blobs: whole, or resumed where they broke; bad moments are waited for."""

from __future__ import annotations

import datetime
import email.utils

import pytest

from rootless.images import answers
from rootless.images.answers import retry_after, wait_before_next
from tests.images.asking import BLOB, MANIFEST, MARKS, blob, broken_after, fails, manifest
from tests.images.fake import Request, digest, serve

# Blobs

pytestmark = MARKS


def test_a_blob_comes_whole() -> None:
    with serve(lambda request: request.serve(BLOB)) as fake:
        assert blob(fake.host) == BLOB
    assert fake.paths() == [f"/v2/team/app/blobs/{digest(BLOB)}"]


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


def test_a_resumed_transfer_goes_through_the_redirect_again() -> None:
    with serve(broken_after(1000)) as storage:
        target = f"http://{storage.host}/blob"
        with serve(lambda request: request.answer(307, location=target)) as fake:
            assert blob(fake.host) == BLOB
    assert [request.headers.get("range") for request in storage.requests] == [None, "bytes=1000-"]
