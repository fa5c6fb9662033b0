"""The file system of a container below its root: mounts, devices, masked paths.

Carries out the ``mounts``, ``maskedPaths``, ``readonlyPaths`` and ``sysctl``
of a config.json under a root directory given as a descriptor. Every path is
resolved as inside that root, so no link of the image leads a mount elsewhere.
Called by init, before it enters the root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rootless.containers.annotation import Extra, Spec
from rootless.errors import RlError
from rootless.kernel import mounts, syscalls
from rootless.volumes import filling

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
# A passwd or group file larger than this is no such file.
_LARGEST_DATABASE: Final = 8 << 20
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


class Outside(NamedTuple):
    """What init has opened as the user: the container's root directory, the sources of its binds.

    ``detached`` are the targets of those sources that are mounts, and mounted nowhere yet.
    ``user`` is what the user's own id is called in the container's namespace; ``filter`` is the
    program that filters its system calls, if there is one; ``fillings`` are those of its volumes,
    by their targets.
    """

    root: int
    sources: dict[str, int]
    user: int
    filter: Sequence[int] = ()
    fillings: Mapping[str, int] = {}
    detached: Sequence[str] = ()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that is open."""
        return (self.root, *self.sources.values(), *self.filter, *self.fillings.values())


def open_sources(spec: Spec, extra: Extra, detached: Mapping[str, int]) -> dict[str, int]:
    """Return a descriptor for the source of each bind, by its target.

    Those in ``detached`` are given. To be called as the user, before anything is mounted: what is
    bound is what the user can reach. A bind that the user named has been followed through its
    links when the container was made; what now is a link there was put by somebody else, perhaps
    by a process of this very container.
    """
    sources = dict(detached)
    devices = {device["path"]: device for device in spec["linux"].get("devices", ())}
    for mount in spec["mounts"]:
        if mount["type"] == "bind" and mount["destination"] not in detached:
            target, source = mount["destination"], mount["source"]
            device = devices.get(target)
            try:
                links = target not in extra.binds and device is None
                sources[target] = mounts.open_source(source, links=links)
            except OSError as error:
                if error.errno == errno.ELOOP and not links:
                    raise RlError(
                        f"cannot mount {source}: a part of it has become a symlink since the "
                        "container was made (make a new container if that is meant to be)"
                    ) from None
                raise _cannot_mount(source, target, error) from None
            if device is not None and not _is_device(sources[target], device):
                raise RlError(f"cannot add device {source}: it is not the device that it was")
    return sources


def _is_device(fd: int, device: dict[str, Any]) -> bool:
    found = os.fstat(fd)
    is_kind = stat.S_ISCHR if device["type"] == "c" else stat.S_ISBLK
    return is_kind(found.st_mode) and found.st_rdev == os.makedev(device["major"], device["minor"])


def take_parts(extra: Extra, outside: Outside) -> None:
    """Let those volumes of which a part is mounted be that part, before anything is mounted.

    Looked up as root of the container, and as inside the volume, whoever else changes it.
    """
    for target, path in extra.subpaths.items():
        whole = outside.sources[target]
        try:
            if target in outside.detached:
                part = mounts.part_of(whole, path, outside.root)
            else:
                part = mounts.open_in_root(whole, path)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                raise
            name = extra.volumes[target]
            raise RlError(f"cannot mount {path} of volume {name}: {error.strerror}") from None
        os.close(whole)
        outside.sources[target] = part


def open_fillings(spec: Spec, extra: Extra) -> dict[str, int]:
    """Return what tells of the filling of each volume that may be filled; as the user, too."""
    return {
        mount["destination"]: filling.open_filling(mount["source"])
        for mount in spec["mounts"]
        if mount["destination"] in extra.filled_volumes
    }


def add_account(root: int, path: str, line: str) -> None:
    """Add a user or group to a database of the image, unless it has his number or name.

    To be called before anything is mounted inside: then no link of the image
    can lead to anything but the container's own files.
    """
    try:
        flags = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
        fd = mounts.open_in_root(root, path, flags)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise
        # An image without users needs none, and one that has a directory there gets none.
        return
    with open(fd, "r+b", buffering=0) as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_DATABASE:
            return
        text = file.readall() or b""
        known = [entry.split(b":") for entry in text.splitlines()]
        name, _, number, *_ = line.encode().split(b":")
        if not any(entry[0] == name or entry[2:3] == [number] for entry in known):
            end = b"" if not text or text.endswith(b"\n") else b"\n"
            os.write(fd, end + line.encode() + b"\n")


def assemble(spec: Spec, extra: Extra, outside: Outside) -> None:
    """Mount and mask everything that ``spec`` asks for inside the container's root."""
    linux, root = spec["linux"], outside.root
    take_parts(extra, outside)
    for mount in spec["mounts"]:
        _mount(mount, extra, outside)
        if mount["destination"] == "/proc":
            # At once, while nothing that a link of the image leads here can lie on top of it.
            for name, value in linux["sysctl"].items():
                asked = name in extra.request.get("namespaces", {}).get("sysctls", ())
                _write_sysctl(root, name, value, asked=asked)
    for path in linux["readonlyPaths"]:
        _at(root, path, _make_readonly)
    for path in linux["maskedPaths"]:
        _at(root, path, _mask)


def mount_host_directories(spec: Spec, extra: Extra, outside: Outside) -> None:
    """Mount only what comes from the host: volumes, directories, and the files made for it."""
    take_parts(extra, outside)
    own = ("/dev/", "/proc/", "/sys/")
    for mount in spec["mounts"]:
        if mount["type"] == "bind" and not f"{mount['destination']}/".startswith(own):
            _mount(mount, extra, outside)


def _mount(mount: dict[str, Any], extra: Extra, outside: Outside) -> None:
    target, kind, root = mount["destination"], mount["type"], outside.root
    try:
        options = mounts.parse_options((*_mode(mount, root), *mount["options"]))
        if kind == "bind":
            source = outside.sources[target]
            target_fd = mounts.make_target(root, target, stat.S_ISDIR(os.fstat(source).st_mode))
        else:
            target_fd = mounts.make_target(root, target, directory=True)
        try:
            if kind == "bind":
                if target in extra.filled_volumes and _same_file_system(root, target_fd):
                    filling.fill(source, target_fd, outside.user, outside.fillings[target])
                if target in outside.detached:
                    # What is attached is closed; the source is asked for once more (U).
                    mounts.attach(os.dup(source), target_fd, options)
                else:
                    mounts.bind(source, target_fd, options)
            elif kind == "cgroup":
                _mount_cgroup(target_fd, options)
            else:
                mounts.mount_on(mount["source"], target_fd, kind, options)
        finally:
            os.close(target_fd)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            # The overlay server's end; the supervisor knows the cause.
            raise
        raise _cannot_mount(mount["source"], target, error) from None
    # What somebody binds there is used as it is.
    if target == "/dev" and kind == "tmpfs":
        _populate_dev(root)


def _mode(mount: dict[str, Any], root: int) -> tuple[str, ...]:
    """Return the mode that a tmpfs has from the directory it lies on, as Docker's has."""
    given = any(option.startswith("mode=") for option in mount["options"])
    if given or mount["type"] != "tmpfs":
        return ()
    try:
        place = mounts.open_in_root(root, mount["destination"])
    except FileNotFoundError:
        return ()
    try:
        return (f"mode={stat.S_IMODE(os.fstat(place).st_mode):o}",)
    finally:
        os.close(place)


def _cannot_mount(source: str, target: str, error: OSError) -> RlError:
    return RlError(f"cannot mount {source} on {target} in the container: {error.strerror}")


def _same_file_system(root: int, target: int) -> bool:
    # A link of the image may lead to /proc, whose content is none of the image's.
    return os.fstat(root).st_dev == os.fstat(target).st_dev


def _mount_cgroup(target: int, options: mounts.Options) -> None:
    try:
        try:
            mounts.mount_on("cgroup", target, "cgroup2", options)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # The host's own is there, with its /sys, and the kernel mounts none upon its like.
            mounts.mount_on("tmpfs", target, "tmpfs", options)
            mounts.mount_on("cgroup", target, "cgroup2", options)
    except PermissionError:
        # A host that shows only parts of its tree (we may be in a container) shows us none.
        pass


def _populate_dev(root: int) -> None:
    dev = mounts.open_in_root(root, "/dev")
    try:
        for name in _DEVICES:
            target = mounts.make_target(root, f"/dev/{name}", directory=False)
            mounts.bind(f"/dev/{name}", target, mounts.parse_options(("nosuid", "noexec")))
            os.close(target)
        for name, destination in _LINKS.items():
            os.symlink(destination, name, dir_fd=dev)
    finally:
        os.close(dev)


def _write_sysctl(root: int, name: str, value: str, *, asked: bool) -> None:
    path = "/proc/sys/" + name.replace(".", "/")
    try:
        # Unbuffered, and bytes: a codec may be out of reach by now.
        with open(mounts.open_in_root(root, path, os.O_WRONLY), "wb", buffering=0) as file:
            file.write(value.encode())
    except OSError as error:
        # EINVAL: a group of ping_group_range that this user namespace does not map.
        if asked or error.errno not in (errno.EINVAL, errno.ENOENT):
            raise RlError(f"cannot set the sysctl {name}: {error.strerror}") from None


def _at(root: int, path: str, change: Callable[[int], None]) -> None:
    """Apply ``change`` to what is at ``path``; what a kernel does not have needs none."""
    try:
        fd = mounts.open_in_root(root, path)
    except FileNotFoundError:
        return
    try:
        change(fd)
    finally:
        os.close(fd)


def _make_readonly(fd: int) -> None:
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | syscalls.AT_RECURSIVE
    tree = syscalls.open_tree("", flags, directory=fd)
    mounts.attach(tree, fd, mounts.parse_options(("rbind", "ro", "nosuid", "nodev", "noexec")))


def _mask(fd: int) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        options = ("ro", "nosuid", "nodev", "noexec", "size=0k", "nr_inodes=1")
        mounts.mount_on("tmpfs", fd, "tmpfs", mounts.parse_options(options))
    else:
        # The host's own: nothing of the container stands between (CVE-2025-31133).
        mounts.bind("/dev/null", fd, mounts.parse_options(("ro",)))
