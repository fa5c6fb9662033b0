"""The layers of an image on their way into the store: from a registry, or from its own blobs.

Owns what runs side by side: download, hash, write and unpack of up to three layers at once; and
ROOT/pull.lock, by which processes take turns. Never makes anything visible that does not match its
digest. Called by the pull, and by run and create for what another program put into the store.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trio

from rootless.errors import RlError
from rootless.images import manifest
from rootless.images.document import MAX_DOCUMENT
from rootless.images.manifest import Descriptor, ImageConfig, Manifest
from rootless.images.progress import Progress, on_stderr
from rootless.images.store import Image, ImageStore
from rootless.images.writers import LayerWriter
from rootless.kernel import userns

# As Docker; more connections rarely help and strain the registry.
LAYERS_AT_ONCE = 3
READ_SIZE = 1 << 20

if TYPE_CHECKING:
    from rootless.images.registry import Receive

    Fetch = Callable[[Descriptor, Receive], Awaitable[None]]


def unpack_image(root: Path, name: str, image: Image, *, quiet: bool) -> None:
    """Unpack those layers of an image that another program put into the store.

    With a pull's progress on stderr. RlError says in one line what is wrong with them.
    """
    userns.call(_unpack_as_root, root, name, image.digest, quiet)


def _unpack_as_root(root: Path, name: str, digest: str, quiet: bool) -> None:
    store = ImageStore(root)
    with (
        on_stderr(quiet) as progress,
        failures_of(f"cannot unpack {name}"),
        Layers.of(store, progress) as layers,
    ):
        # Read as what nobody has verified yet.
        document = manifest.parse_manifest(store.read_blob(digest, MAX_DOCUMENT))
        config = store.read_blob(document.config.digest, MAX_DOCUMENT)
        trio.run(layers.bring, _refuse, document, manifest.parse_config(config))


async def _refuse(layer: Descriptor, receive: Receive) -> None:  # noqa: ARG001
    raise RlError(f"layer {layer.digest} is missing from the store (pull the image again)")


@contextmanager
def failures_of(what: str) -> Iterator[None]:
    """Let what fails in this block, in one task or in several, be one RlError that says what."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = _first(group)
        if isinstance(error, RlError | OSError):
            raise _in_context(error, what) from None
        raise error from None  # ^C, or a defect of ours
    except (RlError, OSError) as error:
        raise _in_context(error, what) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error of several tasks that a person should see."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            leaves.append(error)
    unforeseen = (leaf for leaf in leaves if not isinstance(leaf, RlError | OSError))
    return next(unforeseen, leaves[0])


def _in_context(error: BaseException, what: str) -> RlError:
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
    return RlError(f"{what}: {reason}")


class Layers:
    """The way of layers into a store, under trio, with the lock that gives each its turn."""

    def __init__(self, store: ImageStore, progress: Progress, turns: int) -> None:
        self._store = store
        self._progress = progress
        self._turns = turns

    @classmethod
    @contextmanager
    def of(cls, store: ImageStore, progress: Progress) -> Iterator[Self]:
        """Give one for as long as the store is held and the lock is open."""
        with store.shared(), open(store.root / "pull.lock", "ab") as turns:
            yield cls(store, progress, turns.fileno())

    async def bring(self, fetch: Fetch, document: Manifest, config: ImageConfig) -> None:
        """Bring what the store lacks of an image's layers."""
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
                    nursery.start_soon(self._layer, fetch, diff_id, layer, running)

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
        self, fetch: Fetch, diff_id: str, layer: Descriptor, running: trio.Semaphore
    ) -> None:
        try:
            async with self._turn(layer):
                await self._bring(fetch, diff_id, layer)
            self._progress.completed(layer)
        finally:
            running.release()

    async def _bring(self, fetch: Fetch, diff_id: str, layer: Descriptor) -> None:
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
                        await fetch(layer, receive)
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
