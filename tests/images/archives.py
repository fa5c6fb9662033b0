"""Layers made by hand, unpacked by the store's own process, and what came of them.

Owns the view of an unpacked tree that the layer tests compare, as seen by root of
the user namespace. Used by the tests of this directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rootless.images.store import ImageStore
from rootless.kernel import userns

TAR = "application/vnd.oci.image.layer.v1.tar"
WHITEOUT = (stat.S_IFCHR, 0)


@dataclass(frozen=True)
class Node:
    """What lstat and its like say of a file; times in nanoseconds, owners as in the namespace."""

    kind: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime: int
    size: int = 0
    blocks: int = 0
    device: int = 0
    target: bytes = b""
    content: bytes = b""
    xattrs: dict[str, bytes] = field(default_factory=dict)


Tree = dict[bytes, Node]
Member = tuple[tarfile.TarInfo, bytes]
Format = Literal[0, 1, 2]  # tarfile's names of the formats


def entry(name: str, content: bytes = b"", **fields: Any) -> Member:
    """Return a member: a regular file unless ``type`` says else, with TarInfo's ``fields``."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    return member, content


def directory(name: str, **fields: Any) -> Member:
    return entry(name, **({"mode": 0o755} | fields), type=tarfile.DIRTYPE)


def symlink(name: str, target: str, **fields: Any) -> Member:
    return entry(name, linkname=target, type=tarfile.SYMTYPE, **fields)


def hardlink(name: str, target: str) -> Member:
    return entry(name, linkname=target, type=tarfile.LNKTYPE)


def device(name: str, kind: bytes, major: int, minor: int) -> Member:
    return entry(name, type=kind, devmajor=major, devminor=minor)


def archive(*members: Member, style: Format = tarfile.PAX_FORMAT) -> bytes:
    """Return the members in order, ended as POSIX wants it."""
    return b"".join(map(raw, members, [style] * len(members))) + bytes(1024)


def raw(member: Member, style: Format = tarfile.PAX_FORMAT) -> bytes:
    """Return one member's header and content, padded."""
    info, content = member
    data = info.tobuf(style, "utf-8", "surrogateescape") + content
    return data + bytes(-len(data) % 512)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def unpack(
    root: Path,
    data: bytes,
    media_type: str = TAR,
    diff_id: str | None = None,
    contents: bool = True,
) -> Tree:
    """Unpack a layer into the store at ``root`` and return its tree; RlError as the store says."""
    return userns.call(_unpack, root, data, media_type, diff_id or sha256(data), contents)


def _unpack(root: Path, data: bytes, media_type: str, diff_id: str, contents: bool) -> Tree:
    store = ImageStore(root)
    with store.shared(), store.unpack_layer(diff_id, media_type) as layer:
        feed(layer.fd, data)
        layer.commit()
    return snapshot(store.layer_path(diff_id), contents)


def feed(fd: int, data: bytes) -> None:
    """Write all, or as much as the process on the other side wants."""
    rest = memoryview(data)
    with contextlib.suppress(BrokenPipeError):
        while rest:
            rest = rest[os.write(fd, rest) :]


def snapshot(root: Path, contents: bool = True) -> Tree:
    """Return all below ``root``, which itself is ``.``; contents over 64 KiB as their digest."""
    return dict(_walk(os.fsencode(root), b".", contents))


def _walk(root: bytes, name: bytes, contents: bool) -> Iterator[tuple[bytes, Node]]:
    path = os.path.join(root, name)
    node = _node(path, contents)
    yield os.path.normpath(name), node
    if node.kind == stat.S_IFDIR:
        for below in sorted(os.listdir(path)):
            yield from _walk(root, os.path.join(name, below), contents)


def _node(path: bytes, contents: bool) -> Node:
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    regular = kind == stat.S_IFREG
    content = b""
    if regular and contents:
        with open(path, "rb") as file:
            long = info.st_size > 1 << 16
            content = hashlib.file_digest(file, "sha256").digest() if long else file.read()
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return Node(
        kind=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        nlink=info.st_nlink,
        mtime=info.st_mtime_ns,
        size=info.st_size if regular else 0,
        blocks=info.st_blocks,
        device=info.st_rdev,
        target=os.readlink(path) if kind == stat.S_IFLNK else b"",
        content=content,
        xattrs=xattrs,
    )


def names(tree: Tree) -> set[str]:
    """Return what is in a tree, without its root."""
    return {os.fsdecode(name) for name in tree} - {"."}


def whiteouts(tree: Tree) -> set[str]:
    """Return the names that hide one below."""
    return {
        os.fsdecode(name) for name, node in tree.items() if (node.kind, node.device) == WHITEOUT
    }


def opaques(tree: Tree) -> set[str]:
    """Return the directories that hide what is in the one below."""
    return {
        os.fsdecode(name)
        for name, node in tree.items()
        if node.xattrs.get("user.overlay.opaque") == b"y"
    }
