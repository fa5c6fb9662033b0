"""A child of ours that begins in namespaces of processes that are none of ours.

Owns the go-between that joins them and clones the child as a sibling of its own: a PID namespace
is entered by children alone, and we stay where we are. Never decides who joins whom. Called by
containers for PID 1. See setns(2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from rootless.errors import RlError
from rootless.kernel import process, syscalls


def fork(
    main: Callable[[], int],
    flags: int,
    joined: Mapping[int, int],
    keep: Iterable[int] = (),
    cgroup: int = -1,
    *,
    first: Callable[[], None],
) -> process.Child:
    """Run ``main`` in a child of ours, in the new namespaces of ``flags`` and in those ``joined``.

    These are the CLONE_NEW* of each pidfd; the user namespace is joined with the first. ``first``
    is called by the go-between before it joins anything. The child cannot be traced or read by
    whoever is in the namespaces already: not dumpable, until it executes something.
    """
    kept = [*keep]
    reader, writer = os.pipe()

    def go_between() -> int:
        with open(writer, "w", closefd=False) as report:
            try:
                first()
                syscalls.setns(next(iter(joined)), syscalls.CLONE_NEWUSER)
                syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
                process.die_with_parent()
                for pidfd, kinds in joined.items():
                    if kinds:
                        syscalls.setns(pidfd, kinds)
                child = process.fork(main, flags | syscalls.CLONE_PARENT, kept, cgroup)
                print(child.pid, file=report)
            except OSError as error:
                print(f"cannot join the namespaces: {error.strerror}", file=report)
            except RlError as error:
                print(error, file=report)
        return 0

    descriptors = [*joined, writer, *kept, *([cgroup] if cgroup >= 0 else [])]
    try:
        helper = process.fork(go_between, keep=descriptors)
    finally:
        os.close(writer)
    with open(reader) as report:
        said = report.read().strip()
    helper.wait()
    if not said.isdecimal():
        raise RlError(said or "cannot join the namespaces: a helper process ended")
    # It is our own child: the number stays its own until we wait for it.
    return process.Child(int(said), os.pidfd_open(int(said)))
