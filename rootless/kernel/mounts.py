"""Mounts by descriptor: detached trees and targets that no symlink can redirect.

Owns the use of the new mount API (open_tree, mount_setattr, move_mount;
Linux 5.12) and the reading of mount options as mount(8) spells them. Called by
the container's init; decides nothing about what is mounted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from rootless.kernel import syscalls

_FLAGS: Final = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "sync": syscalls.MS_SYNCHRONOUS,
    "dirsync": syscalls.MS_DIRSYNC,
    "noatime": syscalls.MS_NOATIME,
    "nodiratime": syscalls.MS_NODIRATIME,
    "relatime": syscalls.MS_RELATIME,
    "strictatime": syscalls.MS_STRICTATIME,
}
# What a mount is without a flag of the above.
_USUAL: Final = frozenset("defaults rw suid dev exec async atime diratime".split())
_ATTRIBUTES: Final = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
}
# How often a path is tried again, openat2(2), EAGAIN.
_MOST_DISTURBANCES: Final = 1000
PROPAGATIONS: Final = {
    "private": syscalls.MS_PRIVATE,
    "slave": syscalls.MS_SLAVE,
    "shared": syscalls.MS_SHARED,
}


# As many as the kernel follows, path_resolution(7).
MOST_LINKS: Final = 40


class Options(NamedTuple):
    """Mount options sorted by what the kernel wants them as."""

    flags: int
    attributes: int
    data: str
    propagation: int
    recursive: bool


def parse_options(options: Iterable[str]) -> Options:
    """Sort options as an OCI config.json or -v holds them; unknown ones are the type's data."""
    flags = attributes = 0
    propagation = syscalls.MS_PRIVATE
    recursive = False
    data = []
    for option in options:
        if option in _FLAGS or option in _ATTRIBUTES:
            flags |= _FLAGS.get(option, 0)
            attributes |= _ATTRIBUTES.get(option, 0)
        elif option.removeprefix("r") in PROPAGATIONS:
            propagation = PROPAGATIONS[option.removeprefix("r")]
        elif option in ("bind", "rbind"):
            recursive = option == "rbind"
        elif option not in _USUAL:
            data.append(option)
    return Options(flags, attributes, ",".join(data), propagation, recursive)


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open ``path`` as a process whose root directory is ``root`` would see it."""
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    for _ in range(_MOST_DISTURBANCES):
        try:
            return syscalls.openat2(root, path, flags, resolve)
        except BlockingIOError:
            # Somebody, anywhere, renamed or mounted while the kernel was at a "..".
            continue
    return syscalls.openat2(root, path, flags, resolve)


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """Return a descriptor of the directory ``path`` inside ``root``, made where it is missing."""
    current = os.dup(root)
    done = ""
    try:
        for name in path.split("/"):
            if name in ("", "."):
                continue
            done = f"{done}/{name}"
            try:
                following = open_in_root(root, done)
            except FileNotFoundError:
                try:
                    os.mkdir(name, mode, dir_fd=current)
                except FileExistsError:
                    raise _dangling(done) from None
                following = open_in_root(root, done)
            os.close(current)
            current = following
        return current
    except BaseException:
        os.close(current)
        raise


def make_target(root: int, path: str, directory: bool, links: int = 0) -> int:
    """Return a descriptor of the mount point ``path`` inside ``root``, made where it is missing.

    A file is made where a dangling symlink leads inside ``root``: images have
    such for /etc/resolv.conf. ``links`` counts those that were followed.
    """
    try:
        target = open_in_root(root, path)
    except FileNotFoundError:
        if directory:
            return make_directories(root, path)
        parent, _, name = path.rstrip("/").rpartition("/")
        parent_fd = make_directories(root, parent)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent_fd))
        except FileExistsError:
            if links == MOST_LINKS:
                raise _dangling(path) from None
            link = os.readlink(name, dir_fd=parent_fd)
            return make_target(root, os.path.join(parent, link), directory, links + 1)
        finally:
            os.close(parent_fd)
        return open_in_root(root, path)
    if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
        os.close(target)
        number = errno.ENOTDIR if directory else errno.EISDIR
        raise OSError(number, os.strerror(number), path)
    return target


def _dangling(path: str) -> OSError:
    # What it names would have to be made, wherever that is: nobody asked for it.
    return OSError(errno.ELOOP, "there is a symlink that leads nowhere", path)


def open_source(path: str, *, links: bool) -> int:
    """Return a descriptor to ``bind``; with ``links`` false, OSError ELOOP if the path has any."""
    return syscalls.openat2(
        syscalls.AT_FDCWD, path, os.O_PATH, 0 if links else syscalls.RESOLVE_NO_SYMLINKS
    )


def bind(source: str | int, target: int, options: Options) -> None:
    """Bind ``source`` on the descriptor ``target``, its options in force from the first moment."""
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if options.recursive else 0)
    if isinstance(source, str):
        tree = syscalls.open_tree(source, flags)
    else:
        tree = syscalls.open_tree("", flags | syscalls.AT_EMPTY_PATH, source)
    attach(tree, target, options)


def attach(tree: int, target: int, options: Options) -> None:
    """Attach the detached mount ``tree``, which is closed, on the descriptor ``target``."""
    try:
        syscalls.mount_setattr(tree, options.attributes, options.propagation, options.recursive)
        syscalls.move_mount(tree, target)
    finally:
        os.close(tree)


def part_of(tree: int, path: str, place: int) -> int:
    """Return the detached mount of what is at ``path`` inside ``tree``, another one.

    The kernel takes no part of a mount that is nowhere: so it is on ``place`` for that moment.
    """
    syscalls.move_mount(tree, place)
    try:
        part = open_in_root(tree, path)
        try:
            return syscalls.open_tree("", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH, part)
        finally:
            os.close(part)
    finally:
        syscalls.umount(f"/proc/self/fd/{tree}", syscalls.MNT_DETACH)


def mount_on(source: str, target: int, fstype: str, options: Options) -> None:
    """Mount a file system on the descriptor ``target``."""
    # The magic link leads to the very directory that was opened, wherever it is by now.
    syscalls.mount(source, f"/proc/self/fd/{target}", fstype, options.flags, options.data)


def set_readonly(path: str) -> None:
    """Make the mount at ``path`` read-only, whatever else its flags are."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.mount_setattr(fd, syscalls.MOUNT_ATTR_RDONLY, 0, recursive=False)
    finally:
        os.close(fd)
