"""The names of images: entries of an index, annotated with full references.

Owns what a name is in the store and what becomes of names when one moves or is
removed, as values; never touches the disk. Used by the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rootless.errors import RlError
from rootless.images.manifest import Descriptor
from rootless.images.reference import LOCAL_REGISTRY, Reference, is_short

# The OCI image specification's annotations.md.
REF_NAME: Final = "org.opencontainers.image.ref.name"


def key(reference: Reference) -> str:
    """Return the name an image is stored under: a digest goes before a tag, as in Docker."""
    if reference.digest:
        return f"{reference.name}@{reference.digest}"
    return str(reference)


def meant_by(text: str) -> tuple[str, ...]:
    """Return the names that a text may mean, the first choice first; none if it can only be an ID.

    Podman's rule for what is here: a name without a registry is one of ``localhost`` before
    it is one of docker.io.
    """
    try:
        reference = Reference.parse(text)
        if not is_short(text):
            return (key(reference),)
        return key(Reference.parse(f"{LOCAL_REGISTRY}/{text}")), key(reference)
    except RlError:
        return ()


def name_of(entry: Descriptor) -> str:
    """Return an entry's name, empty if it has none; what another program wrote is made whole."""
    try:
        return key(Reference.parse(entry.annotations[REF_NAME]))
    except (KeyError, RlError):
        return ""


def names_of(entries: Iterable[Descriptor]) -> tuple[str, ...]:
    """Return the names of all entries that have one."""
    return tuple(filter(None, map(name_of, entries)))


def assign(entries: list[Descriptor], descriptor: Descriptor, names: tuple[str, ...]) -> None:
    """Move ``names`` to ``descriptor``; an image that loses its last one stays, as in Docker."""
    replaced = [
        entry
        for entry in entries
        if name_of(entry) in names or (entry.digest == descriptor.digest and not name_of(entry))
    ]
    entries[:] = [entry for entry in entries if entry not in replaced]
    entries += [descriptor._replace(annotations={REF_NAME: name}) for name in names]
    for entry in replaced:
        if all(other.digest != entry.digest for other in entries):
            entries.append(entry._replace(annotations={}))


def to_remove(names: tuple[str, ...], name: str | None) -> tuple[str, ...]:
    """Return ``name``, and with the last tag of a repository also its digests; or all names."""
    if name is None:
        return names
    if "@" in name:
        return (name,)
    repository = Reference.parse(name).name
    others = [one for one in names if one != name and Reference.parse(one).name == repository]
    if any("@" not in other for other in others):
        return (name,)
    return (name, *others)


def repositories(names: Iterable[str]) -> list[str]:
    """Return the repositories that the names are of, sorted."""
    return sorted({Reference.parse(name).name for name in names})
