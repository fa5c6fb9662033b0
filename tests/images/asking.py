"""Questions to registries as a pull asks them, and how they are refused.

Used by the tests of the registry's client.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import trio

from rootless.errors import RlError
from rootless.images.credentials import Credentials
from rootless.images.reference import Reference
from rootless.images.registries import Endpoint
from rootless.images.registry import EndpointClient
from rootless.images.repository import Repository
from tests.images.fake import Request, descriptor

T = TypeVar("T")

# httpx leaves its inner generators to the collector when a body is not read to its end; the
# connection is closed all the same.
MARKS = [
    pytest.mark.usefixtures("short_waits"),
    pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning"),
]

MANIFEST = b'{"schemaVersion": 2}'
BLOB = os.urandom(3_000_000)
ME = Credentials("me", "secret")
BASIC = "Basic " + base64.b64encode(b"me:secret").decode()


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
