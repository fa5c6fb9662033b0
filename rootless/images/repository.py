"""One repository at several endpoints, mirrors first.

Owns the order in which endpoints are asked and what is said when none serves.
Knows nothing of HTTP. Called by the pull.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rootless.errors import RlError
from rootless.images.manifest import Descriptor
from rootless.images.registries import is_loopback
from rootless.images.registry import EndpointClient, NotReached, Receive, RegistryError

_REMEDY: Final = "no way out? set https_proxy, or a mirror in ~/.config/containers/registries.conf"


class Repository:
    """A repository at all of its endpoints: each is tried in order, the first that serves wins.

    The one that served a manifest is asked first from then on. RlError says of
    every endpoint why it did not serve.
    """

    def __init__(self, clients: Sequence[EndpointClient]) -> None:
        self._clients = list(clients)

    async def manifest(self, digest: str | None = None) -> bytes:
        """Return the manifest or index with this digest, or that the reference names."""
        failures = []
        for client in list(self._clients):
            try:
                data = await client.manifest(digest)
            except RegistryError as error:
                failures.append((client, error))
            else:
                self._clients.remove(client)
                self._clients.insert(0, client)
                return data
        raise _failure(failures)

    async def blob(self, descriptor: Descriptor, receive: Receive) -> None:
        """Hand the bytes of a blob to ``receive``, in order and each once; not yet verified.

        An endpoint that breaks half-way is continued by the next one.
        """
        done = 0

        async def counted(chunk: bytes) -> None:
            nonlocal done
            await receive(chunk)
            done += len(chunk)

        failures = []
        for client in list(self._clients):
            try:
                await client.blob(descriptor, done, counted)
            except RegistryError as error:
                failures.append((client, error))
            else:
                return
        raise _failure(failures)


def _failure(failures: list[tuple[EndpointClient, RegistryError]]) -> RlError:
    said = "; ".join(f"{client.host}: {error}" for client, error in failures)
    if all(isinstance(error, NotReached) for _, error in failures) and not all(
        is_loopback(client.host) for client, _ in failures
    ):
        said += f" ({_REMEDY})"
    return RlError(said)
