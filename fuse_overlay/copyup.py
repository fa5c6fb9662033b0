"""Copy-up: gives what lies in a lower layer a copy in the upper one, before it is changed.

A copy is made in the work directory and appears in one step; programs that have the file open go on
with the copy. Called by `overlay`, `changes` and `rename`.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final, NamedTuple

from fuse_overlay.attributes import Attributes
from fuse_overlay.copydata import copy_data, copy_metadata, write_number
from fuse_overlay.inodes import Directory, File, Inode
from fuse_overlay.jobs import Jobs, Pending
from fuse_overlay.layers import OBJECT_FLAGS, descriptor_path
from fuse_overlay.links import Links, link_key
from fuse_overlay.merge import UPPER, Kind
from fuse_overlay.syscalls import start_writing
from fuse_overlay.tree import Tree
from fuse_overlay.workdir import WorkDirectory, make_opaque

if TYPE_CHECKING:
    from concurrent.futures import Future

_SMALL: Final = 1 << 20
"""Bytes that are copied at once: a thread would take longer."""
_STEPS: Final = 64
"""Files to copy up with a directory before other requests get their turn."""
_ABANDONED: Final = 60.0
"""Seconds after which nobody comes back for a copy."""


class _Running(NamedTuple):
    """A copy that a thread makes: its temporary name, the sectors that were counted for it, and
    when it began.
    """

    job: "Future[None]"
    temporary: bytes
    taken: int
    started: float


class Copier:
    """Copies what `tree` found.

    With `sync`, the blocks of a copy are allocated and being written before it replaces the lower
    file. Where data is ordered before the names that lead to it, as on ext4, a power failure then
    leaves the one file or the other, at a small part of what fsync would cost.
    """

    def __init__(
        self, tree: Tree, work: WorkDirectory, links: Links, jobs: Jobs, *, sync: bool
    ) -> None:
        self._tree = tree
        self._backing = tree.backing
        self._inodes = tree.inodes
        self._work = work
        self._links = links
        self._jobs = jobs
        self._running: dict[File, _Running] = {}
        self._walks: dict[Directory, Generator[Future[None] | None, None, None]] = {}
        self._sync = sync

    def copy_up(self, inode: Inode, size: int | None = None) -> None:
        """Give an inode and its parents an upper copy, if they have none.

        Of a file's data, only the first `size` bytes are copied (None: all). Raises Pending.
        """
        if isinstance(inode, Directory):
            self.copy_up_directory(inode)
        elif isinstance(inode, File) and not inode.in_upper:
            self._copy_up_file(inode, size)

    def copy_up_directory(self, directory: Directory) -> None:
        """Give a directory and its parents an upper one. Raises OSError(ENOENT) if removed."""
        missing: list[Directory] = []
        while not directory.in_upper:
            if directory.removed or directory.parent is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            missing.append(directory)
            directory = directory.parent
        for directory in reversed(missing):
            assert directory.parent is not None
            self._tree.check_room(1, 1)
            temporary = self._work.temporary()
            try:
                os.mkdir(temporary, 0o700, dir_fd=self._work.fd)
                self._finish_copy(temporary, directory, self._backing.status(directory))
                self._publish(temporary, directory.parent, directory.name)
            finally:
                self._work.remove(temporary)
            self._book(directory.parent, directory.name, Kind.DIRECTORY)
            directory.in_upper = True
            directory.attributes = None
            directory.charged = self._backing.status(directory).st_blocks
            self._tree.appeared(directory)
            self._tree.changed(directory.parent)

    def _copy_up_file(self, file: File, size: int | None) -> None:
        for parent, _ in file.names:
            self.copy_up_directory(parent)
        status = self._backing.status(file)
        if stat.S_ISREG(file.type):
            temporary = self._copy_regular(file, status, size)
        else:
            temporary = self._copy_special(file, status)
        copy = os.open(temporary, OBJECT_FLAGS, dir_fd=self._work.fd)
        try:
            self._place_copy(file, status, temporary)
            self._backing.close_data(file)  # programs that have it open go on with the copy
            file.layer = UPPER
            file.lost_names = 0
            file.charged = os.fstat(copy).st_blocks
            self._tree.appeared(file)
            if file.descriptor >= 0 and file.link_key is None:
                os.dup2(copy, file.descriptor, inheritable=False)
            elif file.descriptor >= 0:
                os.close(file.descriptor)
                file.descriptor = -1
            if not stat.S_ISREG(file.type):
                self._inodes.keep_number(os.fstat(copy), file.number)
        finally:
            self._work.remove(temporary)
            os.close(copy)
        for parent, name in file.names:
            self.materialize(file, parent, name)
            self._tree.changed(parent)

    def _copy_special(self, file: File, status: os.stat_result) -> bytes:
        """Copy a symlink, FIFO, socket or device. Returns its temporary name."""
        self._tree.check_room(1, 1)
        temporary = self._work.temporary()
        try:
            if stat.S_ISLNK(file.type):
                os.symlink(self._backing.readlink(file), temporary, dir_fd=self._work.fd)
            else:
                os.mknod(temporary, status.st_mode, status.st_rdev, dir_fd=self._work.fd)
            self._finish_copy(temporary, file, status)
        except BaseException:
            self._work.remove(temporary)
            raise
        return temporary

    def _copy_regular(self, file: File, status: os.stat_result, size: int | None) -> bytes:
        """Copy a regular file into the work directory. Returns its temporary name.

        What takes long is left to a thread: raises Pending, and finds it done when called again.
        """
        running = self._running.get(file)
        if running is None:
            size = status.st_size if size is None else min(size, status.st_size)
            needed = min(status.st_blocks, -(-size // 4096) * 8)
            self._tree.take(needed, 1)
            try:
                temporary = self._work.temporary()
                job = self._copy_job(file, status, temporary, size)
                if size <= _SMALL:
                    job()
                    return temporary
                running = _Running(self._jobs.submit(job), temporary, needed, time.monotonic())
                self._running[file] = running
                file.references += 1  # whoever asked holds it, but not what is in a directory
            finally:
                if running is None:
                    self._tree.take(-needed, -1)
        if not running.job.done():
            raise Pending(running.job)
        self._forget_running(file)
        running.job.result()
        return running.temporary

    def _forget_running(self, file: File) -> None:
        self._tree.take(-self._running.pop(file).taken, -1)
        file.references -= 1

    def close(self) -> None:
        """Give up what is not finished; the next server removes what it left."""
        for walk in self._walks.values():
            walk.close()

    def trim(self) -> None:
        """Remove copies that nobody came back for, since the operation failed elsewhere."""
        for file, running in tuple(self._running.items()):
            if running.job.done() and time.monotonic() - running.started > _ABANDONED:
                self._forget_running(file)
                self._work.remove(running.temporary)
                self._inodes.drop_unused(file)

    def _copy_job(
        self, file: File, status: os.stat_result, temporary: bytes, size: int
    ) -> Callable[[], None]:
        """What copies the first `size` bytes of a file, and may do so in a thread.

        It leaves nothing if it fails.
        """
        source = os.dup(self._backing.data(file, write=False))
        shown = self._tree.attributes(file, status)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            target = os.open(temporary, flags, 0o600, dir_fd=self._work.fd)
        except BaseException:
            os.close(source)
            raise

        def job() -> None:
            try:
                copy_data(source, target, size)
                self._copy_metadata(source, target, status, shown)
                if self._sync:
                    start_writing(target)
            except BaseException:
                self._work.remove(temporary)
                raise
            finally:
                os.close(source)
                os.close(target)

        return job

    def _finish_copy(self, temporary: bytes, inode: Inode, status: os.stat_result) -> None:
        source = self._backing.open_path(inode)
        copy = os.open(temporary, OBJECT_FLAGS, dir_fd=self._work.fd)
        try:
            self._copy_metadata(source, copy, status, self._tree.attributes(inode, status))
        finally:
            os.close(source)
            os.close(copy)

    def _copy_metadata(
        self, source: int, target: int, status: os.stat_result, shown: Attributes
    ) -> None:
        owners, path = self._tree.owners, descriptor_path(target)
        if owners is not None and owners.in_attribute(shown.mode):
            os.chmod(path, owners.backing_mode(shown.mode))
            copy_metadata(descriptor_path(source), path, status, shown.number)
            owners.store(path, shown.mode, shown.uid, shown.gid, follow=True)
            return
        try:
            os.chown(path, status.st_uid, status.st_gid)
        except PermissionError:
            if owners is None or not owners.lenient:
                raise
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, stat.S_IMODE(status.st_mode))
        copy_metadata(descriptor_path(source), path, status, shown.number)

    def _place_copy(self, file: File, status: os.stat_result, temporary: bytes) -> None:
        """Let a finished copy take the place of the lower file, if any name leads there, known or
        not.
        """
        links = self._tree.links(file, status)
        if file.names and links == 1:
            parent, name = file.names[0]
            self._publish(temporary, parent, name)
            self._book(parent, name, Kind.OTHER)
        elif links > 0:
            key = link_key(file.layer, status)
            self._links.add(self._work.fd, temporary, key, links - 1)
            copy = os.stat(self._links.name(key), dir_fd=self._links.fd, follow_symlinks=False)
            self._inodes.add_key(file, (UPPER, copy.st_dev, copy.st_ino))
            file.link_key = key
        else:
            self._inodes.drop_keys(file)
        if file.lost_names:
            self._links.forget_lost(link_key(file.layer, status))

    def materialize(self, file: File, parent: Directory, name: bytes) -> None:
        """Give a name of a copied file that only `links` reaches its own upper entry."""
        if file.link_key is None or self._names(parent).get(name) is Kind.OTHER:
            return
        source = self._links.name(file.link_key)
        with self._kept_times(parent):
            os.link(
                source,
                name,
                src_dir_fd=self._links.fd,
                dst_dir_fd=self._backing.directory_fd(parent, UPPER),
                follow_symlinks=False,
            )
        self._links.adjust(file.link_key, -1)
        self._book(parent, name, Kind.OTHER)

    def _publish(self, temporary: bytes, parent: Directory, name: bytes) -> None:
        with self._kept_times(parent):
            os.rename(
                temporary,
                name,
                src_dir_fd=self._work.fd,
                dst_dir_fd=self._backing.directory_fd(parent, UPPER),
            )

    def _kept_times(self, directory: Directory) -> "_KeptTimes":
        """Copy-up is not a change that a program made: the times of the directory stay."""
        return _KeptTimes(self._backing.directory_fd(directory, UPPER))

    def copy_up_whole(self, top: Directory) -> None:
        """Copy a directory up with all below it, so that no lower layer shows through any more.

        The caller holds `top`. Descriptors of directories that it got before may be closed. Raises
        Pending after each part of the work, and goes on when called again.
        """
        walk = self._walks.get(top)
        if walk is None:
            walk = self._walks[top] = self._walk(top)
        paused = False
        try:
            for steps, job in enumerate(walk):
                if job is not None or steps == _STEPS:
                    paused = True
                    raise Pending(job or self._jobs.submit(lambda: None))
        finally:
            if not paused:
                del self._walks[top]

    def _walk(self, top: Directory) -> "Generator[Future[None] | None, None, None]":
        """Copy a directory up whole; yields after each step, with what to wait for first, if any.

        Between two steps programs may change anything but what lower layers show.
        """
        order: list[Directory] = []
        waiting = [top]
        held: list[Directory] = []
        try:
            while waiting:
                directory = waiting.pop()
                if not directory.lowers or directory.removed:
                    continue
                order.append(directory)
                self.copy_up_directory(directory)
                for name in self._tree.visible_names(directory):
                    self._tree.trim()
                    while (found := self._tree.seek(directory, name)) is not None:
                        child = found[0]
                        if isinstance(child, Directory):
                            child.references += 1
                            held.append(child)
                            waiting.append(child)
                            break
                        assert isinstance(child, File)
                        try:
                            self.copy_up(child)
                        except Pending as pending:
                            yield pending.job
                            continue  # it may be gone by now
                        self.materialize(child, directory, name)
                        self._inodes.drop_unused(child)
                        yield None
                        break
            for directory in reversed(order):
                if not directory.removed:
                    self._tree.trim()
                    self._close_off(directory)
                    yield None
        finally:
            for directory in reversed(held):
                directory.references -= 1
                self._inodes.drop_unused(directory)

    def _close_off(self, directory: Directory) -> None:
        """Make a directory, of which all that is visible is in the upper layer, hide the lower."""
        fd = self._backing.directory_fd(directory, UPPER)
        write_number(descriptor_path(fd), directory.number)
        make_opaque(fd)
        names = self._names(directory)
        for name in [name for name, kind in names.items() if kind is Kind.WHITEOUT]:
            os.unlink(name, dir_fd=fd)
            directory.set_upper(name, None)
        self._backing.discard_fds(directory)
        directory.lowers = ()
        directory.lower_names = {}

    def _names(self, directory: Directory) -> dict[bytes, Kind]:
        return self._tree.names(directory)[0]

    def _book(self, directory: Directory, name: bytes, kind: Kind) -> None:
        self._tree.names(directory)
        directory.set_upper(name, kind)


class _KeptTimes:
    """Gives a directory its times back at the end of a with statement."""

    def __init__(self, fd: int) -> None:
        self._path = descriptor_path(fd)

    def __enter__(self) -> None:
        self._status = os.stat(self._path)

    def __exit__(self, *_: object) -> None:
        os.utime(self._path, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))
