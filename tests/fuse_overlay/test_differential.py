"""Random operations on our overlay and on the kernel's, which must not be told apart.

Without `RL_TEST_DIFFERENTIAL` always the same sequences are tried; it says how many new ones are
tried instead. What fails is shrunk to a short program, which is printed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fuse_overlay.syscalls import FALLOC_FL_KEEP_SIZE, RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.fuse_overlay import generated, operations
from tests.fuse_overlay.generated import Layer
from tests.fuse_overlay.operations import Node, Seen
from tests.fuse_overlay.side import Side
from tests.fuse_overlay.strategies import (
    ATTRIBUTES,
    DATA,
    DIRECTORY_MODES,
    FILE_MODES,
    LAYERS,
    OFFSETS,
    OPEN_FLAGS,
    PATHS,
    SLOTS,
    TARGETS,
    TIMES,
    USERS,
)
from tests.fuse_overlay.support import in_namespace

_EXAMPLES = 160
_STEPS = 80
_PUNCH_HOLE = 2


class Machine(RuleBasedStateMachine):
    """Does the same on both sides, the kernel's first."""

    below: ClassVar[Path]
    """Where each gets a directory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(dir=self.below))
        self._failed = True
        self._checks = 0

    @initialize(layers=LAYERS)
    def layers(self, layers: list[Layer]) -> None:
        self._kernel = Side(
            generated.build(self._directory / "kernel", layers),
            self._directory / "kernel",
            ours=False,
        )
        self._ours = Side(
            generated.build(self._directory / "ours", layers), self._directory / "ours", ours=True
        )
        side = self._kernel
        spare = self._directory / "spare"
        generated.unite_links(side.lowers, side.upper, side.work, side.at, spare)
        os.umask(0o22)
        self._kernel.mount()
        self._ours.mount()
        self._failed = False
        self._compare_trees("at first", self._kernel.tree(), self._ours.tree())
        self._links_below = {
            number
            for path, number in self._ours.numbers().items()
            if stat.S_ISREG((self._ours.at / path).lstat().st_mode)
            and (self._ours.at / path).lstat().st_nlink > 1
        }

    def teardown(self) -> None:
        try:
            if not self._failed:
                self.remount()
                self._cross()
        finally:
            for side in (getattr(self, "_kernel", None), getattr(self, "_ours", None)):
                if side is not None:
                    side.unmount()
            operations.remove_tree(str(self._directory))

    # Comparisons

    def _check(self, what: str, expected: object, found: object) -> None:
        self._checks += 1
        if expected != found:
            self._failed = True
            raise AssertionError(f"{what}: the kernel's {expected!r}, ours {found!r}")

    def _compare_trees(
        self, when: str, expected: Mapping[str, Node], found: Mapping[str, Node]
    ) -> None:
        lines = operations.differences(expected, found)
        if lines:
            self._failed = True
            raise AssertionError(f"trees differ {when} (expected, found):\n" + "\n".join(lines))

    def _both(
        self,
        function: Callable[..., object],
        *arguments: object,
        user: int = 0,
        touched: tuple[str, ...] = (),
        in_place: str | None = None,
    ) -> object:
        """Do the same on both sides, and compare what it returns and what the paths then show.

        `in_place`: what is there must remain the same inode.
        """
        before = None if in_place is None else self._ours.look(in_place, follow=True)
        expected = self._kernel.do(user, function, *arguments)
        found = self._ours.do(user, function, *arguments)
        self._check("result", expected, found)
        if in_place is not None:
            self._check_number(before, self._ours.look(in_place, follow=True))
            touched = (*touched, in_place)
        self._compare_paths(*touched)
        return expected

    def _check_number(self, before: object, after: object) -> None:
        if isinstance(before, Seen) and isinstance(after, Seen):
            self._check("inode number before and after", before.number, after.number)

    def _compare_paths(self, *paths: str) -> None:
        for path in {*paths, *(os.path.dirname(path) or "." for path in paths)}:
            one, other = self._kernel.look(path), self._ours.look(path)
            self._check(f"status of {path}", one[:-1], other[:-1])

    def _with(self, slot: int, function: Callable[..., object], *arguments: object) -> None:
        fd = self._ours.handles.get(slot)
        before = None if fd is None else os.fstat(fd).st_ino
        expected = self._kernel.do_with(slot, function, *arguments)
        found = self._ours.do_with(slot, function, *arguments)
        self._check("result", expected, found)
        if fd is not None:
            one = operations.seen(os.fstat(self._kernel.handles[slot]))
            other = operations.seen(os.fstat(fd))
            self._check("inode number of an open file", before, other.number)
            if other.links == 0 and one.links == 1:
                # An open lower file that was removed keeps its link count under the kernel's.
                one = one._replace(links=0)
            self._check("status of an open file", one[:-1], other[:-1])

    # Names

    @rule(path=PATHS, user=USERS)
    def read(self, path: str, user: int) -> None:
        self._both(operations.read, path, user=user, in_place=path)

    @rule(
        path=PATHS,
        flags=st.sampled_from(
            [
                0,
                os.O_TRUNC,
                os.O_APPEND,
                os.O_CREAT,
                os.O_CREAT | os.O_TRUNC,
                os.O_CREAT | os.O_EXCL,
            ]
        ),
        offset=OFFSETS,
        data=DATA,
        user=USERS,
    )
    def write(self, path: str, flags: int, offset: int, data: bytes, user: int) -> None:
        flags &= ~self._no_truncation(path, 0)
        self._both(operations.write, path, flags, offset, data, user=user, in_place=path)

    def _no_truncation(self, path: str, size: int) -> int:
        """O_TRUNC where a file has that size already, else 0.

        Whether its time changes then, POSIX leaves open: under FUSE's writeback cache the kernel
        keeps the time that it knows, whatever the server says.
        """
        seen = self._kernel.look(path, follow=True)
        return os.O_TRUNC if isinstance(seen, Seen) and seen.size == size else 0

    @rule(path=PATHS, size=OFFSETS, user=USERS)
    def truncate(self, path: str, size: int, user: int) -> None:
        if not self._no_truncation(path, size):
            self._both(operations.truncate, path, size, user=user, in_place=path)

    @rule(path=PATHS, offset=OFFSETS, data=DATA)
    def write_map(self, path: str, offset: int, data: bytes) -> None:
        self._both(operations.write_map, path, offset, data, in_place=path)

    @rule(path=PATHS, mode=DIRECTORY_MODES, user=USERS)
    def mkdir(self, path: str, mode: int, user: int) -> None:
        self._both(os.mkdir, path, mode, user=user, touched=(path,))

    @rule(path=PATHS, user=USERS)
    def rmdir(self, path: str, user: int) -> None:
        self._both(os.rmdir, path, user=user, touched=(path,))

    @rule(path=PATHS, user=USERS)
    def unlink(self, path: str, user: int) -> None:
        self._both(os.unlink, path, user=user, touched=(path,))

    @rule(path=PATHS)
    def remove_tree(self, path: str) -> None:
        self._both(operations.remove_tree, path, touched=(path,))

    @rule(old=PATHS, new=PATHS, user=USERS)
    def link(self, old: str, new: str, user: int) -> None:
        expected = self._both(operations.link, old, new, user=user, touched=(old, new))
        if expected is None:
            self._check_number(self._ours.look(old), self._ours.look(new))

    @rule(to=TARGETS, path=PATHS, user=USERS)
    def symlink(self, to: str, path: str, user: int) -> None:
        self._both(os.symlink, to, path, user=user, touched=(path,))

    @rule(path=PATHS, mode=FILE_MODES, user=USERS)
    def mkfifo(self, path: str, mode: int, user: int) -> None:
        self._both(os.mkfifo, path, mode, user=user, touched=(path,))

    @rule(
        old=PATHS,
        new=PATHS,
        flags=st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]),
        user=USERS,
    )
    def rename(self, old: str, new: str, flags: int, user: int) -> None:
        before = self._ours.look(old), self._ours.look(new)
        expected = self._kernel.do(user, operations.rename, old, new, flags)
        if expected == "EXDEV":
            # The kernel's refuses to move a directory with a lower part. What is open there can
            # be moved with its files, but a directory itself is made anew.
            if self._kernel.has_directory_open():
                return
            expected = self._kernel.do(0, operations.move, old, new, flags)
        self._check("result", expected, self._ours.do(user, operations.rename, old, new, flags))
        self._compare_paths(old, new)
        if expected is None:
            self._check_number(before[0], self._ours.look(new))
            if flags & RENAME_EXCHANGE:
                self._check_number(before[1], self._ours.look(old))

    @rule(path=PATHS, mode=st.one_of(FILE_MODES, DIRECTORY_MODES), user=USERS)
    def chmod(self, path: str, mode: int, user: int) -> None:
        self._both(os.chmod, path, mode, user=user, in_place=path)

    @rule(path=PATHS, owner=st.sampled_from([-1, 0, 5, 77]), group=st.sampled_from([-1, 0, 77]))
    def lchown(self, path: str, owner: int, group: int) -> None:
        self._both(os.lchown, path, owner, group, in_place=path)

    @rule(path=PATHS, mtime=TIMES, user=USERS)
    def utime(self, path: str, mtime: int | None, user: int) -> None:
        self._both(operations.utime, path, mtime, user=user, in_place=path)

    @rule(path=PATHS, attribute=ATTRIBUTES, flags=st.sampled_from([0, 0, 1, 2]), user=USERS)
    def setxattr(self, path: str, attribute: tuple[str, bytes], flags: int, user: int) -> None:
        self._both(os.setxattr, path, *attribute, flags, user=user, in_place=path)

    @rule(path=PATHS, attribute=ATTRIBUTES, user=USERS)
    def removexattr(self, path: str, attribute: tuple[str, bytes], user: int) -> None:
        if self._kernel.is_upper(path) != self._ours.is_upper(path):
            # An ACL that is not there: an upper file's can be removed and a lower one's not, and
            # the kernel's makes an upper file of one that is only opened.
            return
        self._both(os.removexattr, path, attribute[0], user=user, in_place=path)

    @rule(path=PATHS, user=USERS)
    def attributes(self, path: str, user: int) -> None:
        self._both(operations.attributes, path, user=user)

    @rule(path=PATHS, user=USERS)
    def directory_entries(self, path: str, user: int) -> None:
        self._both(operations.directory_entries, path, user=user)

    @rule(path=PATHS)
    def fsync_directory(self, path: str) -> None:
        self._both(operations.sync_directory, path)

    # What is open

    @rule(slot=SLOTS, path=PATHS, flags=OPEN_FLAGS, mode=FILE_MODES, user=USERS)
    def open(self, slot: int, path: str, flags: int, mode: int, user: int) -> None:
        flags &= ~self._no_truncation(path, 0)
        arguments = user, slot, operations.open_file, path, flags, mode
        expected = self._kernel.do_open(*arguments)
        self._check("result", expected, self._ours.do_open(*arguments))
        self._compare_paths(path)

    @rule(slot=SLOTS)
    def close(self, slot: int) -> None:
        self._kernel.close(slot)
        self._ours.close(slot)

    @rule(slot=SLOTS, offset=OFFSETS, size=st.sampled_from([10, 5000, 2_000_000]))
    def read_handle(self, slot: int, offset: int, size: int) -> None:
        self._with(slot, operations.read_handle, offset, size)

    @rule(slot=SLOTS, data=DATA, offset=OFFSETS)
    def pwrite(self, slot: int, data: bytes, offset: int) -> None:
        self._with(slot, os.pwrite, data, offset)

    @rule(slot=SLOTS, data=DATA)
    def write_handle(self, slot: int, data: bytes) -> None:
        self._with(slot, os.write, data)

    @rule(slot=SLOTS, size=OFFSETS)
    def ftruncate(self, slot: int, size: int) -> None:
        fd = self._ours.handles.get(slot)
        if fd is None or os.fstat(fd).st_size != size:
            self._with(slot, os.ftruncate, size)

    @rule(slot=SLOTS, mode=FILE_MODES)
    def fchmod(self, slot: int, mode: int) -> None:
        self._with(slot, os.fchmod, mode)

    @rule(slot=SLOTS, owner=st.sampled_from([0, 5, 77]))
    def fchown(self, slot: int, owner: int) -> None:
        self._with(slot, os.fchown, owner, owner)

    @rule(slot=SLOTS, mtime=TIMES)
    def futime(self, slot: int, mtime: int | None) -> None:
        self._with(slot, operations.utime, mtime)

    @rule(slot=SLOTS, attribute=ATTRIBUTES)
    def fsetxattr(self, slot: int, attribute: tuple[str, bytes]) -> None:
        self._with(slot, os.setxattr, *attribute)

    @rule(slot=SLOTS, offset=OFFSETS, data=DATA)
    def map_handle(self, slot: int, offset: int, data: bytes) -> None:
        self._with(slot, operations.map_handle, offset, data)

    @rule(
        slot=SLOTS,
        mode=st.sampled_from([0, FALLOC_FL_KEEP_SIZE, _PUNCH_HOLE | FALLOC_FL_KEEP_SIZE]),
        offset=OFFSETS,
        length=st.sampled_from([1, 5000, 100_000]),
    )
    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        self._with(slot, operations.allocate, mode, offset, length)

    @rule(slot=SLOTS)
    def fsync(self, slot: int) -> None:
        self._with(slot, os.fsync)

    @rule(source=SLOTS, into=SLOTS, offset=OFFSETS, into_offset=OFFSETS)
    def copy_range(self, source: int, into: int, offset: int, into_offset: int) -> None:
        if source not in self._ours.handles or into not in self._ours.handles:
            return
        results = [
            side.do(
                0,
                os.copy_file_range,
                side.handles[source],
                side.handles[into],
                100_000,
                offset,
                into_offset,
            )
            for side in (self._kernel, self._ours)
        ]
        self._check("result", *results)

    @rule(slot=SLOTS, path=PATHS)
    def link_handle(self, slot: int, path: str) -> None:
        self._with(slot, operations.link_handle, path)
        self._compare_paths(path)

    @rule(slot=SLOTS)
    def list_handle(self, slot: int) -> None:
        self._with(slot, operations.list_handle)

    # Everything

    @rule()
    def compare(self) -> None:
        self._compare_trees("now", self._kernel.tree(), self._ours.tree())

    @precondition(lambda self: self._checks > 100)
    @rule()
    def remount(self) -> None:
        self._checks = 0
        before = self._kernel.tree()
        self._compare_trees("before a remount", before, self._ours.tree())
        numbers = self._ours.numbers()
        for side in (self._kernel, self._ours):
            side.unmount()
            side.mount()
        self._compare_trees("after a remount, the kernel's", before, self._kernel.tree())
        self._compare_trees("after a remount", before, self._ours.tree())
        self._check("inode numbers after a remount", numbers, self._ours.numbers())

    def _cross(self) -> None:
        """Mount each other's upper."""
        before = self._kernel.tree()
        # Names of a lower file with several are known as one file through WORK/links alone: the
        # kernel's without an index takes a copied-up one for another file.
        apart = {
            path for path, number in self._ours.numbers().items() if number in self._links_below
        }
        self._kernel.unmount()
        self._ours.unmount()
        self._kernel.mount(self._ours)
        self._compare_trees(
            "with our upper directory under the kernel's",
            {path: node for path, node in before.items() if f"./{path}" not in apart},
            {path: node for path, node in self._kernel.tree().items() if f"./{path}" not in apart},
        )
        self._kernel.unmount()
        self._ours.mount(self._kernel)
        self._compare_trees(
            "with the kernel's upper directory under ours", before, self._ours.tree()
        )


@in_namespace
def test_no_sequence_of_operations_tells_our_overlay_from_the_kernels(tmp_path: Path) -> None:
    Machine.below = tmp_path
    always_the_same = "RL_TEST_DIFFERENTIAL" not in os.environ
    if always_the_same:
        # Hypothesis also draws the constants of every module of ours that is loaded: each change of
        # one, and each test file more, would make other sequences.
        providers.CONSTANTS_CACHE.cache.clear()
        providers._get_local_constants = Constants
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(os.environ.get("RL_TEST_DIFFERENTIAL", _EXAMPLES)),
            stateful_step_count=_STEPS,
            phases=(Phase.generate, Phase.shrink),
            deadline=None,
            database=None,
            derandomize=always_the_same,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
