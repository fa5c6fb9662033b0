"""A child of ours that begins in namespaces which are none of ours.

Owns the go-between that enters them and clones the child as a sibling of its own: nobody comes back
from a user namespace, only children are in a PID namespace, and we stay where we are. Never decides
who enters what. Called by ``nested``, and by containers for PID 1. See setns(2), clone(2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rootless.errors import RlError
from rootless.kernel import process, syscalls


class Entered(NamedTuple):
    """What is entered: a user namespace, then others, by a descriptor and the CLONE_NEW* of each.

    A descriptor is one of a namespace, or a pidfd of a process that is in all that are meant.
    """

    userns: int
    others: tuple[tuple[int, int], ...] = ()


def fork(
    main: Callable[[], int],
    flags: int,
    entered: Entered,
    keep: Iterable[int] = (),
    cgroup: int = -1,
    *,
    dumpable: bool,
    first: Callable[[], None] | None = None,
    then: Callable[[int], None] | None = None,
    failed: str,
) -> process.Child:
    """Run ``main`` in a child of ours, in the namespaces ``entered`` and the new ones of ``flags``.

    As ``process.fork``. The go-between calls ``first`` before it enters anything, and ``then`` with
    the child's number; if that raises, there is no child. Only if ``dumpable`` can it write the
    child's maps, and whoever is in the namespaces already trace and read them both, until the child
    executes something. ``failed`` begins the RlError of what the kernel refuses.
    """
    kept = [*keep]
    reader, writer = os.pipe()

    def go_between() -> int:
        with open(writer, "w", closefd=False) as report:
            try:
                if first is not None:
                    first()
                syscalls.setns(entered.userns, syscalls.CLONE_NEWUSER)
                # What was gained thereby took away both of these.
                syscalls.prctl(syscalls.PR_SET_DUMPABLE, int(dumpable))
                process.die_with_parent()
                for fd, kinds in entered.others:
                    syscalls.setns(fd, kinds)
                child = process.fork(main, flags | syscalls.CLONE_PARENT, kept, cgroup)
                print(child.pid, file=report, flush=True)
                if then is not None:
                    then(child.pid)
                print("done", file=report)
            except OSError as error:
                print(f"{failed}: {error.strerror}", file=report)
            except RlError as error:
                print(error, file=report)
        return 0

    descriptors = [entered.userns, *(fd for fd, _ in entered.others), writer, *kept, cgroup]
    try:
        helper = process.fork(go_between, keep=descriptors)
    finally:
        os.close(writer)
    with open(reader) as report:
        pid, _, said = report.read().strip().partition("\n")
    helper.wait()
    failure = RlError(f"{failed}: a helper process ended")
    if not pid.isdecimal():
        raise RlError(pid) if pid else failure
    # It is our own child: the number stays its own until we wait for it.
    child = process.Child(int(pid), os.pidfd_open(int(pid)))
    if said != "done":
        child.kill()
        child.wait()
        raise RlError(said) if said else failure
    return child
