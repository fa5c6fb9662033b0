"""The images of one user on disk.

Owns ROOT/images (an OCI image layout), ROOT/layers, ROOT/tmp and ROOT/lock, and
their crash rule: whatever is unfinished lies in tmp/, is synced and then
renamed to where it is visible. Never talks to a registry, never opens an
archive. Called by the pull and the command line, and by containers for lookups.

Unpacking and removing need root of a user namespace that maps the user's
subordinate ids; everything else does not. On the start-up path of `rl run`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rootless.errors import ImageNotFound, LayersMissing, RlError
from rootless.files import cannot_write, write_file
from rootless.images import manifest, naming
from rootless.images.document import MAX_DOCUMENT
from rootless.images.manifest import Descriptor, ImageConfig
from rootless.images.reference import Reference
from rootless.images.writers import BlobWriter, LayerWriter
from rootless.trees import remove_tree

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


class Image(NamedTuple):
    """An image whose manifest, configuration and layers are in the store."""

    id: str  # the digest of its configuration, as in Docker
    digest: str  # of its manifest
    names: tuple[str, ...]  # full references, tags and `name@sha256:…`
    config: ImageConfig
    size: int  # of its blobs, in bytes
    layers: tuple[str, ...]  # diff IDs, bottom to top

    @property
    def created(self) -> str:
        """When it was made: RFC 3339, or empty if the image does not say."""
        return self.config.created


class Removal(NamedTuple):
    """What `rmi` did: the names taken away, and the IDs of images that are gone with them."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]


class ImageStore:
    """The images below one root directory, shared by all processes of the user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "images/blobs/sha256"
        self._layers = root / "layers"
        self._tmp = root / "tmp"
        self._index = root / "images/index.json"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep every sweep away, for as long as files are being added or relied upon."""
        self._make_directories()
        with _locked(self.root / "lock", fcntl.LOCK_SH):
            yield

    # Blobs

    def has_blob(self, digest: str) -> bool:
        """Tell whether a blob is there, whole and verified."""
        return self.blob_path(digest).exists()

    def blob_path(self, digest: str) -> Path:
        """Return where a blob is or would be."""
        return self._blobs / _hex(digest)

    def write_blob(self, descriptor: Descriptor) -> BlobWriter:
        """Return a writer for a blob of that digest and size; hold ``shared`` meanwhile."""
        return BlobWriter(self._aside("blob"), self.blob_path(descriptor.digest), descriptor)

    def put_blob(self, data: bytes) -> str:
        """Store a small blob and return its digest."""
        from hashlib import sha256

        digest = f"sha256:{sha256(data).hexdigest()}"
        if not self.has_blob(digest) or self.blob_path(digest).read_bytes() != data:
            write_file(self._aside("blob"), self.blob_path(digest), data)
        return digest

    def read_blob(self, digest: str, limit: int) -> bytes:
        """Return a blob of at most ``limit`` bytes, its digest verified."""
        from hashlib import sha256

        data = self._read(digest, limit)
        if f"sha256:{sha256(data).hexdigest()}" != digest:
            raise RlError(f"{self.blob_path(digest)} is damaged (remove it and pull again)")
        return data

    def _read(self, digest: str, limit: int) -> bytes:
        """Return a blob as it is on disk: it was verified when it was written."""
        try:
            with open(self.blob_path(digest), "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise RlError(f"{digest} is missing from the store (pull the image again)") from None
        if len(data) > limit:
            raise RlError(f"{digest} has more than the {limit} bytes we allow for it")
        return data

    # Layers

    def has_layer(self, diff_id: str) -> bool:
        """Tell whether a layer is there, whole and verified."""
        return self.layer_path(diff_id).exists()

    def layer_path(self, diff_id: str) -> Path:
        """Return where an unpacked layer is or would be."""
        return self._layers / _hex(diff_id)

    def unpack_layer(self, diff_id: str, media_type: str) -> LayerWriter:
        """Start a process that unpacks a layer; hold ``shared`` meanwhile."""
        return LayerWriter(self._aside("layer"), self.layer_path(diff_id), diff_id, media_type)

    # Images

    def add(
        self, reference: Reference, descriptor: Descriptor, extra_digest: str | None = None
    ) -> Image:
        """Give the image of a stored manifest its name; whoever had the name loses it.

        ``extra_digest`` is the one the registry knows it by (of its index, if
        it has one): the image is also found as ``name@extra_digest``. The
        manifest, its configuration and its layers must be in the store. A
        manifest of Docker's is stored anew in OCI's form, with that digest.
        """
        names = [naming.key(reference)]
        if extra_digest is not None:
            names.append(f"{reference.name}@{manifest.check_digest(extra_digest)}")
        plain = self._oci_descriptor(descriptor)
        with self._changing_entries() as entries:
            image = self._load(plain, tuple(dict.fromkeys(names)))
            for diff_id in image.layers:
                if not self.has_layer(diff_id):
                    raise RlError(f"layer {diff_id} is missing from the store")
            naming.assign(entries, plain, image.names)
            mine = [entry for entry in entries if entry.digest == plain.digest]
            return image._replace(names=naming.names_of(mine))

    def _oci_descriptor(self, descriptor: Descriptor) -> Descriptor:
        document = self._manifest(descriptor)
        if document.media_type == manifest.OCI_MANIFEST:
            return descriptor._replace(annotations={}, platform=None)
        data = manifest.to_oci(document)
        return Descriptor(manifest.OCI_MANIFEST, self.put_blob(data), len(data))

    def find(self, name: str) -> Image:
        """Return the image with that reference, or with that ID or unique beginning of one.

        A name goes before the beginning of an ID, as in Docker. Raises
        ImageNotFound.
        """
        entries = self._entries()
        digest, _ = self._resolve(name, entries)
        return self._load_entry(digest, entries)

    def find_whole(self, name: str) -> Image:
        """Return an image as ``find`` does; LayersMissing if a layer is not unpacked."""
        image = self.find(name)
        if not all(map(self.has_layer, image.layers)):
            raise LayersMissing(f"the image {name} is not unpacked yet (`rl run` does it)")
        return image

    def images(self) -> list[Image]:
        """Return all images, one for each manifest, in the order they came.

        An image whose files someone has damaged is left out: a pull mends it.
        """
        entries = self._entries()
        found = []
        for digest in dict.fromkeys(entry.digest for entry in entries):
            try:
                found.append(self._load_entry(digest, entries))
            except RlError:
                continue
        return found

    def remove(
        self,
        name: str,
        in_use: Mapping[str, str] | None = None,
        force: bool = False,
        running: Mapping[str, str] | None = None,
    ) -> Removal:
        """Take a name from an image, as `docker rmi`: without a name the image goes too.

        By ID all its names go; if they are of several repositories, that needs
        ``force``. ``in_use`` maps the IDs of images to a container that uses
        each: those stay, unless forced; ``running`` to one that runs: those
        stay in any case. A later ``sweep`` frees the space.
        """
        with self._changing_entries() as entries:
            ids = self._ids(entries)
            digest, key = self._resolve(name, entries)
            identifier = ids.get(digest)
            # Manifests of one configuration are one image.
            mine = [
                entry
                for entry in entries
                if entry.digest == digest or (identifier and ids.get(entry.digest) == identifier)
            ]
            image = self._load(mine[0], naming.names_of(mine))
            gone = naming.to_remove(image.names, key)
            if key is None and not force:
                _refuse_many_repositories(image)
            last = set(gone) == set(image.names)
            if last:
                _refuse_used(name, image.id, {} if force else in_use or {}, running or {})
            entries[:] = [
                entry
                for entry in entries
                if entry not in mine or not (last or naming.name_of(entry) in gone)
            ]
        return Removal(gone, (image.id,) if last else ())

    def sweep(self, used_layers: Callable[[], Iterable[str]]) -> None:
        """Remove what no image refers to, and what killed processes left behind.

        ``used_layers`` returns the diff IDs that containers need; it is called
        when nobody can add any. Does nothing while anyone holds ``shared``: a
        later sweep will.
        """
        self._make_directories()
        try:
            with _locked(self.root / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as lock:
                self._move_unused(used_layers)
                garbage = os.listdir(self._tmp)
                # What is in tmp/ now stays garbage: nobody need wait for its removal.
                fcntl.flock(lock, fcntl.LOCK_SH)
                for name in garbage:
                    _remove_if_possible(self._tmp / name)
        except BlockingIOError:
            return

    def _move_unused(self, used_layers: Callable[[], Iterable[str]]) -> None:
        blobs, layers = self._referenced()
        layers.update(_hex(diff_id) for diff_id in used_layers())
        for directory, keep in ((self._blobs, blobs), (self._layers, layers)):
            for name in os.listdir(directory):
                if name not in keep:
                    os.rename(directory / name, self._aside("garbage"))

    def _referenced(self) -> tuple[set[str], set[str]]:
        """Return the blobs and the layers (hex digits) that the index refers to.

        A document that someone damaged is not among them, so that a pull brings
        it anew.
        """
        blobs: set[str] = set()
        layers: set[str] = set()
        pending = [entry.digest for entry in self._entries()]
        while pending:
            digest = pending.pop()
            try:
                document = manifest.parse_document(self.read_blob(digest, MAX_DOCUMENT))
                blobs.add(_hex(digest))
                if isinstance(document, manifest.Index):  # `skopeo copy --all` can put one here
                    pending += [entry.digest for entry in document.manifests]
                    continue
                blobs.update(_hex(layer.digest) for layer in document.layers)
                config = self.read_blob(document.config.digest, MAX_DOCUMENT)
                blobs.add(_hex(document.config.digest))
                layers.update(_hex(diff_id) for diff_id in manifest.parse_config(config).diff_ids)
            except RlError:
                continue
        return blobs, layers

    def _resolve(self, name: str, entries: list[Descriptor]) -> tuple[str, str | None]:
        """Return the digest of the manifest that ``name`` means, and which name that is, if any."""
        named = {naming.name_of(entry): entry.digest for entry in entries}
        for key in naming.meant_by(name):
            if key in named:
                return named[key], key
        found = {}
        if match := _ID.fullmatch(name):
            found = {
                identifier: digest
                for digest, identifier in self._ids(entries).items()
                if _hex(identifier).startswith(match[1])
            }
        if len(found) > 1:
            raise ImageNotFound(f"{name} is the beginning of several image IDs")
        if not found:
            raise ImageNotFound(f"no image {name} (`rl images` lists them)")
        return found.popitem()[1], None

    def _ids(self, entries: list[Descriptor]) -> dict[str, str]:
        """Return the image ID of each manifest, by its digest; a damaged one has none."""
        found = {}
        for entry in entries:
            try:
                found[entry.digest] = self._manifest(entry).config.digest
            except RlError:
                continue
        return found

    def _manifest(self, entry: Descriptor) -> manifest.Manifest:
        return manifest.parse_manifest(self._read(entry.digest, MAX_DOCUMENT))

    def _load_entry(self, digest: str, entries: list[Descriptor]) -> Image:
        mine = [entry for entry in entries if entry.digest == digest]
        return self._load(mine[0], naming.names_of(mine))

    def _load(self, descriptor: Descriptor, names: tuple[str, ...]) -> Image:
        document = self._manifest(descriptor)
        config = manifest.parse_config(self._read(document.config.digest, MAX_DOCUMENT))
        manifest.check_layers(document, config)
        size = descriptor.size + document.config.size + sum(one.size for one in document.layers)
        return Image(
            document.config.digest, descriptor.digest, names, config, size, config.diff_ids
        )

    def _entries(self) -> list[Descriptor]:
        try:
            data = self._index.read_bytes()
        except FileNotFoundError:
            return []
        try:
            return list(manifest.parse_index(data).manifests)
        except RlError as error:
            raise RlError(
                f"{self._index} is damaged: {error} (move it away and pull the images again)"
            ) from None

    @contextmanager
    def _changing_entries(self) -> Iterator[list[Descriptor]]:
        """Give out the index's entries to be changed, and put them back if no error comes up."""
        self._make_directories()
        with _locked(self.root / "images/index.lock", fcntl.LOCK_EX):
            entries = self._entries()
            yield entries
            index = {
                "schemaVersion": 2,
                "mediaType": manifest.OCI_INDEX,
                "manifests": [entry.to_json() for entry in entries],
            }
            _write_json(self._aside("index"), self._index, index)

    def _make_directories(self) -> None:
        layout = self.root / "images/oci-layout"
        if layout.exists() and self._tmp.is_dir():
            return
        # Nobody else may reach a layer: its setuid files belong to the user.
        images = layout.parent
        parents = (self.root, images, images / "blobs", self._blobs, self._layers, self._tmp)
        try:
            for directory in parents:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.root, error) from None
        _write_json(self._aside("layout"), layout, {"imageLayoutVersion": "1.0.0"})

    def _aside(self, kind: str) -> Path:
        return self._tmp / f"{kind}-{os.urandom(8).hex()}"


def _hex(digest: str) -> str:
    """Return a digest's part that names a file; RlError if it could be any other path."""
    return manifest.check_digest(digest).removeprefix("sha256:")


@contextmanager
def _locked(path: Path, operation: int) -> Iterator[int]:
    """Hold a lock on a file, made if it is missing; it goes when the process ends in any way."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, operation)
        yield fd
    finally:
        os.close(fd)


def _refuse_many_repositories(image: Image) -> None:
    repositories = naming.repositories(image.names)
    if len(repositories) > 1:
        raise RlError(
            f"image {image.id[7:19]} has names in several repositories: "
            f"{', '.join(repositories)} (remove them by name, or use --force)"
        )


def _refuse_used(
    name: str, identifier: str, in_use: Mapping[str, str], running: Mapping[str, str]
) -> None:
    if identifier in running:
        raise RlError(
            f"image {name} is being used by running container {running[identifier]} "
            "(stop the container first)"
        )
    if identifier in in_use:
        raise RlError(
            f"image {name} is used by container {in_use[identifier]} "
            "(remove the container first, or use --force)"
        )


def _remove_if_possible(path: Path) -> None:
    try:
        remove_tree(path)
    except OSError:
        pass  # it stays garbage, for a later sweep


def _write_json(aside: Path, path: Path, value: dict[str, Any]) -> None:
    write_file(aside, path, json.dumps(value, indent=1).encode())
