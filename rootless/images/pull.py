"""From a name to an image in the store.

Owns the order of a pull and what runs side by side: download, hash, write and
unpack of up to three layers at once; and ROOT/pull.lock, by which processes
take turns. Never makes anything visible that does not match its digest; never
reads configuration inside the namespace. Called by the command line.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from rootless import events
from rootless.errors import RlError
from rootless.images import credentials, manifest, registries
from rootless.images.credentials import Credentials
from rootless.images.manifest import Descriptor, ImageConfig, Manifest, Platform
from rootless.images.progress import Progress, on_stderr
from rootless.images.reference import Reference
from rootless.images.registries import Endpoint
from rootless.images.registry import EndpointClient, Receive
from rootless.images.repository import Repository
from rootless.images.store import Image, ImageStore
from rootless.images.writers import LayerWriter
from rootless.kernel import userns

# As Docker; more connections rarely help and strain the registry.
LAYERS_AT_ONCE = 3
READ_SIZE = 1 << 20
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
    try:
        with store.shared(), open(store.root / "pull.lock", "ab") as turns:
            return trio.run(
                _Pull(store, reference, sources, platform, progress, turns.fileno()).run
            )
    except BaseExceptionGroup as group:
        raise _first(group, reference) from None
    except (RlError, OSError) as error:
        raise _in_context(error, reference) from None


def _first(group: BaseExceptionGroup[BaseException], reference: Reference) -> BaseException:
    """Return the one error of several tasks that a person should see."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            leaves.append(error)
    for leaf in leaves:
        if not isinstance(leaf, RlError | OSError):
            return leaf  # ^C, or a defect of ours
    return _in_context(leaves[0], reference)


def _in_context(error: BaseException, reference: Reference) -> RlError:
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
    return RlError(f"cannot pull {reference.familiar}: {reason}")


class _Pull:
    """One pull under trio."""

    def __init__(
        self,
        store: ImageStore,
        reference: Reference,
        sources: Sequence[Source],
        platform: Platform | None,
        progress: Progress,
        turns: int,
    ) -> None:
        self._turns = turns
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
            await self._layers(repository, document, config)
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
                data = self._store.read_blob(digest, manifest.MAX_DOCUMENT)
            else:
                data = await repository.manifest(digest)
        raise RlError("its indexes refer to indexes without end")

    async def _config(self, repository: Repository, document: Manifest) -> ImageConfig:
        descriptor = document.config
        if self._store.has_blob(descriptor.digest):
            return manifest.parse_config(
                self._store.read_blob(descriptor.digest, manifest.MAX_DOCUMENT)
            )
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

    async def _layers(
        self, repository: Repository, document: Manifest, config: ImageConfig
    ) -> None:
        pairs = manifest.check_layers(document, config)
        if all(self._has(*pair) for pair in pairs):
            return
        # An image may have one layer, an empty one say, several times.
        layers = {(diff_id, layer.digest): layer for diff_id, layer in pairs}
        running = trio.Semaphore(LAYERS_AT_ONCE)
        for (diff_id, _), layer in layers.items():
            if self._has(diff_id, layer):
                self._progress.exists(layer)
            else:
                self._progress.waiting(layer)
        async with trio.open_nursery() as nursery:
            for (diff_id, _), layer in layers.items():
                if not self._has(diff_id, layer):
                    await running.acquire()
                    nursery.start_soon(self._layer, repository, diff_id, layer, running)

    def _has(self, diff_id: str, layer: Descriptor) -> bool:
        return self._store.has_layer(diff_id) and self._store.has_blob(layer.digest)

    @asynccontextmanager
    async def _turn(self, layer: Descriptor) -> AsyncIterator[None]:
        """Be the only process that brings a layer, so that jobs started at once fetch it once.

        Nothing but waste would come of two. The lock is a byte of one file:
        it leaves no garbage, and it goes when its process ends in any way.
        """
        byte = int(layer.digest[-15:], 16)
        while True:
            try:
                fcntl.lockf(self._turns, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
                break
            except BlockingIOError:
                await trio.sleep(0.05)
        try:
            yield
        finally:
            fcntl.lockf(self._turns, fcntl.LOCK_UN, 1, byte)

    async def _layer(
        self, repository: Repository, diff_id: str, layer: Descriptor, running: trio.Semaphore
    ) -> None:
        try:
            async with self._turn(layer):
                await self._bring(repository, diff_id, layer)
            self._progress.completed(layer)
        finally:
            running.release()

    async def _bring(self, repository: Repository, diff_id: str, layer: Descriptor) -> None:
        """Bring what the store lacks of a layer: its blob, its tree, both or by now nothing."""
        if self._has(diff_id, layer):
            return
        with ExitStack() as stack:
            blob = tree = None
            if not self._store.has_blob(layer.digest):
                blob = stack.enter_context(self._store.write_blob(layer))
            if not self._store.has_layer(diff_id):
                tree = stack.enter_context(self._store.unpack_layer(diff_id, layer.media_type))
            try:
                async with _pipe_to(tree) as send:

                    async def receive(chunk: bytes) -> None:
                        if blob:
                            blob.write(chunk)
                        await send(chunk)
                        self._progress.advanced(layer, len(chunk))

                    if blob:
                        await repository.blob(layer, receive)
                    else:
                        await self._from_store(layer, receive)
            except trio.BrokenResourceError:
                # The unpacking process gave up: its reason comes with the commit.
                if tree:
                    await trio.to_thread.run_sync(tree.commit)
                raise RlError(f"layer {layer.digest} goes on after its end") from None
            self._progress.downloaded(layer)
            if blob:
                await trio.to_thread.run_sync(blob.commit)
            if tree:
                await trio.to_thread.run_sync(tree.commit)

    async def _from_store(self, layer: Descriptor, receive: Receive) -> None:
        with self._store.blob_path(layer.digest).open("rb") as file:
            while chunk := file.read(READ_SIZE):
                await receive(chunk)


@asynccontextmanager
async def _pipe_to(tree: LayerWriter | None) -> AsyncIterator[Receive]:
    """Yield what sends bytes to the process that unpacks, if there is one."""
    if tree is None:

        async def discard(_: bytes) -> None:
            pass

        yield discard
        return
    async with trio.lowlevel.FdStream(os.dup(tree.fd)) as pipe:
        yield pipe.send_all


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
