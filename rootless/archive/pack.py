"""A tree of files as a tar archive, written while it is read.

Owns how a file becomes an entry of the archive. Reads by descriptors alone, follows no link, opens
nothing but regular files and directories: who else changes the tree meanwhile changes what is in
the archive, and nothing else. Called by `carrier`, in the process that sees the tree, and to fill
a volume.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from typing import IO, Final

from fuse_overlay.copydata import data_extents
from rootless.errors import RlError
from rootless.images.metadata import PAX_XATTR, is_kept, shown
from rootless.kernel import syscalls

_CHUNK: Final = 1 << 20
_UNIT: Final = 4096  # a file system's block
_BLOCK: Final = tarfile.BLOCKSIZE
# What the kernel makes up as it is read: proc, sysfs, cgroup2.
_MADE_UP: Final = (0x9FA0, 0x62656572, 0x63677270)

_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def pack(top: int, name: str, sink: IO[bytes], *, exact: bool) -> int:
    """Write what the O_PATH descriptor ``top`` is, and all below it, under ``name``.

    "." and "" are the top of the archive, of which "" has no entry. ``exact``: with holes and
    nanoseconds, for ourselves; without, any tar can read it. Returns how many bytes the files held.
    """
    packer = _Packer(sink, exact)
    if syscalls.file_system_type(top) in _MADE_UP:
        raise RlError(f"{shown(name)} is made up by the kernel, and cannot be copied")
    if name:
        packer.add(top, name)
    if stat.S_ISDIR(os.fstat(top).st_mode):
        packer.add_below(top, f"{name}/" if name else "")
    # The end of an archive.
    sink.write(b"\0" * (2 * _BLOCK))
    sink.flush()
    return packer.size


class _Packer:
    def __init__(self, sink: IO[bytes], exact: bool) -> None:
        self.size = 0
        self._sink = sink
        self._exact = exact
        self._links: dict[tuple[int, int], str] = {}

    def add_below(self, directory: int, prefix: str) -> None:
        """Write all entries below a directory, whatever its depth; a parent before its children."""
        waiting = [_Listing(directory, prefix)]
        while waiting:
            listing = waiting[-1]
            if not listing.names:
                os.close(waiting.pop().fd)
                continue
            name = listing.names.pop()
            # One that has gone by now is not in the archive.
            with contextlib.suppress(FileNotFoundError):
                flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(name, flags, dir_fd=listing.fd)
                try:
                    path = listing.prefix + name
                    found = self.add(fd, path)
                    if stat.S_ISDIR(found.st_mode) and not _is_made_up(fd, found, listing.device):
                        waiting.append(_Listing(fd, f"{path}/"))
                finally:
                    os.close(fd)

    def add(self, fd: int, name: str) -> os.stat_result:
        """Write one entry; a socket has none."""
        found = os.fstat(fd)
        kind = _TYPES.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return found
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mode = stat.S_IMODE(found.st_mode)
        info.uid, info.gid = found.st_uid, found.st_gid
        info.mtime = found.st_mtime_ns // 10**9
        if self._exact:
            _header(info, mtime=_decimal(found.st_mtime_ns))
        if kind == tarfile.SYMTYPE:
            info.linkname = os.readlink("", dir_fd=fd)
        elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        else:
            _add_attributes(fd, info)
        if kind != tarfile.DIRTYPE and found.st_nlink > 1:
            first = self._links.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
        if info.type == tarfile.REGTYPE:
            self._add_file(fd, info)
        else:
            self._write_header(info)
        return found

    def _write_header(self, info: tarfile.TarInfo) -> None:
        self._sink.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _add_file(self, fd: int, info: tarfile.TarInfo) -> None:
        try:
            data = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RlError(f"cannot read {shown(info.name)}: {error.strerror}") from None
        try:
            found = os.fstat(data)
            extents = [(0, found.st_size)]
            if self._exact and found.st_blocks * 512 < found.st_size:
                extents = _data(data, found.st_size)
            held = sum(end - start for start, end in extents)
            info.size = held
            table = b""
            if held != found.st_size:
                table = _sparse(info, extents, found.st_size)
            self._write_header(info)
            self._sink.write(table)
            for start, end in extents:
                self._copy(data, start, end)
            self._pad(held)
            self.size += held
        finally:
            os.close(data)

    def _copy(self, data: int, start: int, end: int) -> None:
        while start < end:
            chunk = os.pread(data, min(_CHUNK, end - start), start)
            # It has become shorter than was said.
            self._sink.write(chunk or b"\0" * min(_CHUNK, end - start))
            start += len(chunk) or _CHUNK

    def _pad(self, size: int) -> None:
        self._sink.write(b"\0" * (-size % _BLOCK))


class _Listing:
    """A directory whose ``names`` (the next last) are still to be written."""

    def __init__(self, directory: int, prefix: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            self.fd = os.open(".", flags, dir_fd=directory)
        except OSError as error:
            raise RlError(f"cannot read {shown(prefix)}: {error.strerror}") from None
        self.prefix = prefix
        self.names = sorted(os.listdir(self.fd), reverse=True)
        self.device = os.fstat(self.fd).st_dev


def _is_made_up(fd: int, found: os.stat_result, parent_device: int) -> bool:
    return found.st_dev != parent_device and syscalls.file_system_type(fd) in _MADE_UP


def _add_attributes(fd: int, info: tarfile.TarInfo) -> None:
    path = f"/proc/self/fd/{fd}"
    try:
        for name in filter(is_kept, os.listxattr(path)):
            value = os.getxattr(path, name)
            _header(info, **{PAX_XATTR + name: value.decode("utf-8", "surrogateescape")})
    except OSError:
        pass  # a file system without them


def _data(data: int, size: int) -> list[tuple[int, int]]:
    """Return the parts of a file that are not holes, as (start, end).

    Where the file system does not tell (ours does not while the kernel collects writes), those
    that hold anything but zeros.
    """
    extents = data_extents(data, size)
    if extents != [(0, size)]:
        return extents
    extents = []
    for at in range(0, size, _CHUNK):
        chunk = os.pread(data, min(_CHUNK, size - at), at)
        if chunk.count(0) == len(chunk):
            continue
        for start in range(0, len(chunk), _UNIT):
            part = chunk[start : start + _UNIT]
            if part.count(0) == len(part):
                continue
            if extents and extents[-1][1] == at + start:
                extents[-1] = (extents[-1][0], at + start + len(part))
            else:
                extents.append((at + start, at + start + len(part)))
    return extents


def _sparse(info: tarfile.TarInfo, extents: list[tuple[int, int]], size: int) -> bytes:
    """Turn an entry into a sparse one, GNU tar's PAX format 1.0; return the table of its data."""
    sparse = {"major": "1", "minor": "0", "name": info.name, "realsize": str(size)}
    _header(info, **{f"GNU.sparse.{key}": value for key, value in sparse.items()})
    # The end, in case there is a hole before it.
    listed = [*((start, end - start) for start, end in extents), (size, 0)]
    numbers = [len(listed), *(number for pair in listed for number in pair)]
    table = "".join(f"{number}\n" for number in numbers).encode()
    table += b"\0" * (-len(table) % _BLOCK)
    info.size += len(table)
    return table


def _header(info: tarfile.TarInfo, **records: str) -> None:
    info.pax_headers = {**info.pax_headers, **records}


def _decimal(nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{'-' * (nanoseconds < 0)}{seconds}.{rest:09d}"
