"""From a name to an image in the store.

Owns the order of a pull; the layers are brought by ``layers``. Never makes anything visible that
does not match its digest; never reads configuration inside the namespace. Called by the command
line.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from rootless import events
from rootless.errors import RlError
from rootless.images import credentials, manifest, registries
from rootless.images.credentials import Credentials
from rootless.images.document import MAX_DOCUMENT
from rootless.images.layers import Layers, failures_of
from rootless.images.manifest import Descriptor, ImageConfig, Manifest
from rootless.images.platform import Platform
from rootless.images.progress import Progress, on_stderr
from rootless.images.reference import Reference
from rootless.images.registries import Endpoint
from rootless.images.registry import EndpointClient
from rootless.images.repository import Repository
from rootless.images.store import Image, ImageStore
from rootless.kernel import userns

# An index may refer to an index; more than that nobody makes.
MAX_NESTED_INDEXES = 3


class Source(NamedTuple):
    """An endpoint, and who we are there."""

    endpoint: Endpoint
    credentials: Credentials | None


def pull_image(root: Path, name: str, platform: str | None, quiet: bool) -> str:
    """Fetch an image into the store below ``root`` and return its ID (``sha256:…``).

    Progress goes to stderr. RlError says in one line what every endpoint said.
    """
    reference = Reference.parse(name)
    wanted = Platform.parse(platform) if platform else None
    # Read as the user: a credential helper may want to know who asks.
    sources = find_sources(reference)
    image_id = userns.call(_pull_as_root, root, reference, sources, wanted, quiet)
    name = reference.familiar
    events.record(root, "image", "pull", name, {"name": reference.familiar_name})
    return image_id


def find_sources(reference: Reference) -> list[Source]:
    """Return where to look for an image, by the user's configuration, first choice first."""
    return [
        Source(endpoint, credentials.find(endpoint.reference))
        for endpoint in registries.endpoints(reference, registries.load())
    ]


def _pull_as_root(
    root: Path,
    reference: Reference,
    sources: Sequence[Source],
    platform: Platform | None,
    quiet: bool,
) -> str:
    with on_stderr(quiet) as progress:
        return pull(ImageStore(root), reference, sources, platform=platform, progress=progress).id


def pull(
    store: ImageStore,
    reference: Reference,
    sources: Sequence[Source],
    *,
    platform: Platform | None,
    progress: Progress,
) -> Image:
    """Fetch an image for ``platform`` (None: this machine's) and name it in the store.

    For root of a user namespace. What is in the store is not fetched again;
    any number of processes may do this at once. RlError is one line.
    """
    with failures_of(f"cannot pull {reference.familiar}"), Layers.of(store, progress) as layers:
        return trio.run(_Pull(store, reference, sources, platform, progress, layers).run)


class _Pull:
    """One pull under trio."""

    def __init__(
        self,
        store: ImageStore,
        reference: Reference,
        sources: Sequence[Source],
        platform: Platform | None,
        progress: Progress,
        layers: Layers,
    ) -> None:
        self._layers = layers
        self._store = store
        self._reference = reference
        self._sources = sources
        self._platform = platform
        self._progress = progress

    async def run(self) -> Image:
        """Fetch everything, then give the image its name."""
        self._progress.started(self._reference)
        before = self._named_before()
        async with self._repository() as repository:
            top, descriptor, document = await self._manifest(repository)
            config = await self._config(repository, document)
            self._check_platform(config)
            await self._layers.bring(repository.blob, document, config)
        image = self._store.add(self._reference, descriptor, top)
        self._progress.finished(self._reference, top, new=image.digest != before)
        return image

    def _named_before(self) -> str | None:
        try:
            return self._store.find(str(self._reference)).digest
        except RlError:
            return None

    @asynccontextmanager
    async def _repository(self) -> AsyncIterator[Repository]:
        async with AsyncExitStack() as stack:
            yield Repository(
                [
                    await stack.enter_async_context(
                        EndpointClient(source.endpoint, source.credentials, self._progress.message)
                    )
                    for source in self._sources
                ]
            )

    async def _manifest(self, repository: Repository) -> tuple[str, Descriptor, Manifest]:
        """Return the digest that the name stands for, and the manifest of our platform."""
        data = await repository.manifest()
        top = digest = _digest(data)
        for _ in range(MAX_NESTED_INDEXES + 1):
            document = manifest.parse_document(data)
            if isinstance(document, Manifest):
                self._store.put_blob(data)
                return top, Descriptor(document.media_type, digest, len(data)), document
            digest = manifest.choose(document, self._platform or Platform.host()).digest
            if self._store.has_blob(digest):
                data = self._store.read_blob(digest, MAX_DOCUMENT)
            else:
                data = await repository.manifest(digest)
        raise RlError("its indexes refer to indexes without end")

    async def _config(self, repository: Repository, document: Manifest) -> ImageConfig:
        descriptor = document.config
        if self._store.has_blob(descriptor.digest):
            return manifest.parse_config(self._store.read_blob(descriptor.digest, MAX_DOCUMENT))
        chunks: list[bytes] = []

        async def collect(chunk: bytes) -> None:
            chunks.append(chunk)

        await repository.blob(descriptor, collect)
        data = b"".join(chunks)
        if _digest(data) != descriptor.digest:
            raise RlError(f"its configuration is not what its digest {descriptor.digest} says")
        config = manifest.parse_config(data)
        self._store.put_blob(data)
        return config

    def _check_platform(self, config: ImageConfig) -> None:
        """Refuse what is not as asked for; what was not asked for, `rl run` may warn of."""
        wanted, has = self._platform, config.platform
        if wanted and has.architecture and has not in wanted.runs():
            raise RlError(f"there is an image for {has} only, not for {wanted}")


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
