"""Images as `rl images` and `rl inspect` show them, in Docker's field names.

Pure: from a store's Image to rows and to a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from rootless.cli import filters
from rootless.cli.output import Row
from rootless.cli.template import Map
from rootless.cli.units import ago, local_time, size
from rootless.errors import RlError
from rootless.images.reference import LOCAL_REGISTRY, Reference
from rootless.images.store import Image

TITLES: Final = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}
COLUMNS: Final = ("Repository", "Tag", "ID", "CreatedSince", "Size")
DIGEST_COLUMNS: Final = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
FILTERS: Final = ("reference", "dangling", "label")

_NONE: Final = "<none>"


def rows(
    image: Image, *, patterns: list[str], digests: bool, truncate: bool, now: datetime | None = None
) -> Iterator[Row]:
    """Yield a row for each tag of an image that one of ``patterns`` matches (all if there is none).

    With ``digests``, one for each tag and digest. Without a name an image has
    one row, unless names were asked for.
    """
    for reference, digest in _names(image, digests):
        if patterns and (
            reference is None or not any(matches(reference, pattern) for pattern in patterns)
        ):
            continue
        yield {
            "ID": image.id.removeprefix("sha256:")[:12] if truncate else image.id,
            "Repository": reference.familiar_name if reference else _NONE,
            "Tag": (reference.tag if reference else None) or _NONE,
            "Digest": digest or _NONE,
            "CreatedSince": ago(image.created, now),
            "CreatedAt": local_time(image.created),
            "Size": size(image.size),
        }


def _names(image: Image, digests: bool) -> Iterator[tuple[Reference | None, str | None]]:
    references = [Reference.parse(name) for name in image.names]
    if not references:
        yield None, None
    for repository in dict.fromkeys(reference.name for reference in references):
        mine = [reference for reference in references if reference.name == repository]
        tagged = [reference for reference in mine if not reference.digest]
        by_digest = [reference for reference in mine if reference.digest]
        # Docker shows a name by digest alone only where there is no tag.
        for reference in tagged or by_digest[:1]:
            if not digests or not by_digest:
                yield reference, None
                continue
            for other in by_digest:
                yield reference, other.digest


def matches(reference: Reference, pattern: str) -> bool:
    """Tell whether a pattern such as ``alpine``, ``host/*:v1*`` means this name.

    A star stays within a part, as in Docker. A full name without patterns in it
    is read as a reference; what is of ``localhost`` need not say so, as in Podman.
    """
    texts = (reference.familiar, reference.familiar_name)
    local = f"{LOCAL_REGISTRY}/"
    if any(_glob(text, pattern) or _glob(text.removeprefix(local), pattern) for text in texts):
        return True
    try:
        wanted = Reference.parse(pattern)
    except RlError:
        return False
    return reference.name == wanted.name and (
        ":" not in pattern.rpartition("/")[2] or reference.tag == wanted.tag
    )


def _glob(text: str, pattern: str) -> bool:
    parts, wanted = text.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def selected(image: Image, wanted: Mapping[str, list[str]]) -> bool:
    """Tell whether the filters dangling (without a tag) and label let an image through."""
    tagged = any("@" not in name for name in image.names)
    for value in wanted.get("dangling", ()):
        if filters.truth("dangling", value) == tagged:
            return False
    return filters.labels_match(wanted.get("label", ()), image.config.labels)


def inspect(image: Image, root: Path) -> dict[str, Any]:
    """Return everything about an image, shaped as `docker image inspect` prints it."""
    config = image.config
    references = [Reference.parse(name) for name in image.names]
    layers = [str(root / "layers" / diff_id.removeprefix("sha256:")) for diff_id in image.layers]
    platform = {"Architecture": config.platform.architecture, "Os": config.platform.os}
    if config.platform.variant:
        platform["Variant"] = config.platform.variant
    return {
        "Id": image.id,
        "RepoTags": [reference.familiar for reference in references if not reference.digest],
        "RepoDigests": [
            f"{reference.familiar_name}@{reference.digest}"
            for reference in references
            if reference.digest
        ],
        "Parent": "",
        "Comment": "",
        "Created": image.created,
        "Author": "",
        "Config": {
            "Hostname": "",
            "Domainname": "",
            "User": config.user,
            "ExposedPorts": Map({port: {} for port in config.exposed_ports}),
            "Tty": False,
            "OpenStdin": False,
            "Env": list(config.env),
            "Cmd": list(config.cmd),
            "Image": "",
            "Volumes": Map({path: {} for path in config.volumes}),
            "WorkingDir": config.working_dir,
            "Entrypoint": list(config.entrypoint),
            "Labels": Map(config.labels),
            "StopSignal": config.stop_signal,
        },
        **platform,
        "Size": image.size,
        "GraphDriver": {
            "Name": "fuse-overlay",
            "Data": Map(LowerDir=":".join(reversed(layers))),
        },
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }
