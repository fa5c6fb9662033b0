"""User namespaces inside one of ours: their ids, whose child they are, what they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.errors import RlError
from rootless.kernel import nested, process, syscalls, userns
from rootless.kernel.nested import Outer, translate
from rootless.kernel.userns import IdMap, Maps

FLAGS = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID


def maps(*entries: tuple[int, int, int]) -> Maps:
    both = tuple(IdMap(*entry) for entry in entries)
    return Maps(both, both)


USER = maps((0, 1000, 1), (1, 100000, 10), (11, 300000, 10))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (USER, maps((0, 0, 1), (1, 1, 10), (11, 11, 10))),
        # keep-id, and one range over two of the user's.
        (maps((0, 100000, 5), (5, 1000, 1)), maps((0, 1, 5), (5, 0, 1))),
        (maps((7, 100008, 2), (9, 300000, 3)), maps((7, 9, 2), (9, 11, 3))),
    ],
)
def test_ids_are_those_of_the_outer_namespace(wanted: Maps, expected: Maps) -> None:
    assert translate(wanted, USER) == expected


@pytest.mark.parametrize("wanted", [maps((0, 1001, 1)), maps((0, 100005, 6)), maps((0, 999, 2))])
def test_ids_that_the_outer_namespace_lacks_are_refused(wanted: Maps) -> None:
    with pytest.raises(RlError, match="is not mapped"):
        translate(wanted, USER)


@pytest.fixture
def outer() -> Iterator[Outer]:
    """Return a namespace of all the user's ids, held by a process, with a network of its own."""
    mapped, go = os.pipe()
    end, never = os.pipe()

    def hold() -> int:
        process.die_with_parent()
        os.read(mapped, 1)
        os.read(end, 1)
        return 0

    kept = (mapped, end)
    child = process.fork(hold, syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET, keep=kept)
    own = userns.storage_maps()
    userns.write_maps(child.pid, own)
    os.write(go, b"m")
    namespaces = {
        name: os.open(f"/proc/{child.pid}/ns/{name}", os.O_RDONLY) for name in ("user", "net")
    }
    yield Outer(namespaces["user"], own, ((namespaces["net"], syscalls.CLONE_NEWNET),))
    child.kill()
    child.wait()
    for fd in (*namespaces.values(), mapped, go, end, never):
        os.close(fd)


def test_child_is_ours_and_has_the_maps_of_the_host_that_it_was_given(outer: Outer) -> None:
    reader, writer = os.pipe()
    go, going = os.pipe()

    def main() -> int:
        os.read(go, 1)
        lines = [Path("/proc/self/uid_map").read_text(), os.readlink("/proc/self/ns/net")]
        syscalls.become_root()
        lines += [str(os.getuid()), str(os.getpid())]
        os.write(writer, "\n".join(lines).encode())
        return 7

    child = nested.fork(main, FLAGS, outer.maps, outer, keep=(writer, go))
    parent = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1]
    seen_from_here = Path(f"/proc/{child.pid}/uid_map").read_text()
    os.write(going, b"g")
    assert child.wait() == 7
    assert int(parent) == os.getpid()
    # The kernel shows them as the reader's own.
    assert seen_from_here.split() == [
        str(number)
        for entry in outer.maps.uids
        for number in (entry.inside, entry.outside, entry.size)
    ]
    said = os.read(reader, 10000).decode().split("\n")
    assert said[-2:] == ["0", "1"]
    assert said[-3] == f"net:[{os.fstat(outer.shared[0][0]).st_ino}]"
    for fd in (reader, writer, go, going):
        os.close(fd)


def test_child_holds_no_descriptor_that_it_was_not_given(outer: Outer) -> None:
    reader, writer = os.pipe()
    go, going = os.pipe()

    def main() -> int:
        os.read(go, 1)
        os.write(writer, " ".join(sorted(os.listdir("/proc/self/fd"))).encode())
        return 0

    child = nested.fork(main, FLAGS, outer.maps, outer, keep=(writer, go))
    os.write(going, b"g")
    assert child.wait() == 0
    listed = os.read(reader, 1000).decode().split()
    # One is that of the directory which is listed.
    assert len(set(listed) - {"0", "1", "2", str(writer), str(go)}) == 1
    for fd in (reader, writer, go, going):
        os.close(fd)


def test_what_the_kernel_refuses_is_said_in_a_line(outer: Outer) -> None:
    not_a_namespace = os.open("/", os.O_RDONLY)
    broken = outer._replace(shared=((not_a_namespace, syscalls.CLONE_NEWNET),))
    with pytest.raises(RlError, match="cannot make a nested user namespace: Invalid argument"):
        nested.fork(lambda: 0, FLAGS, outer.maps, broken)
    os.close(not_a_namespace)
