"""Settles, when a server starts, which copies in WORK/links are still in use (see `links`).

A copy that no upper name reaches is reached by lower names, or by none any more: its count knows
nothing of names that are hidden by the layers, or were removed before there was a copy, or by a
server that was killed before it had counted. Only the lower layer tells. Never removes a copy whose
lower file it has not found. Called by `overlay`, before the first operation.
"""

import os

from fuse_overlay.copyup import Copier
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.layers import walk
from fuse_overlay.links import Links, layer_and_inode, link_key
from fuse_overlay.tree import Tree


def settle_links(tree: Tree, links: Links, copier: Copier) -> None:
    """Give copies that no upper name reaches an upper entry for each name that leads to them, or
    remove them: none of them has to be looked at again.
    """
    waiting: dict[int, dict[int, bytes]] = {}
    for key in links.unreached():
        layer, inode = layer_and_inode(key)
        waiting.setdefault(layer, {})[inode] = key
    for layer, keys in waiting.items():
        if layer in tree.root.lowers:
            try:
                found = _settle(tree, copier, layer, keys)
            except OSError:
                continue  # a part of the layer cannot be read: the next server tries again
            for key in found.intersection(links.unreached()):
                links.remove(key)


def _settle(tree: Tree, copier: Copier, layer: int, keys: dict[int, bytes]) -> set[bytes]:
    """Give every visible name of the copies an upper entry. Returns those whose lower file is
    there. Raises OSError.
    """
    found = set()
    for path, entries in walk(tree.backing.directory_fd(tree.root, layer)):
        for entry in entries:
            key = keys.get(entry.inode())
            if key is not None and link_key(layer, entry.stat(follow_symlinks=False)) == key:
                _reach(tree, copier, [*path, os.fsencode(entry.name)], key)
                found.add(key)
    return found


def _reach(tree: Tree, copier: Copier, path: list[bytes], key: bytes) -> None:
    """Give a lower name an upper entry, if it leads to the copy."""
    inode: Inode = tree.root
    try:
        for name in path:
            assert isinstance(inode, Directory)
            parent, found = inode, tree.seek(inode, name)
            if found is None:
                return
            inode = found[0]
            if isinstance(inode, File):
                break
        if isinstance(inode, File) and inode.link_key == key:
            copier.copy_up_directory(parent)
            copier.materialize(inode, parent, name)
    finally:
        tree.inodes.drop_unused(inode)
        tree.trim()
