"""Our own interpreter, kept out of the container's reach.

Until PID 1 executes the container's command it is our interpreter, and the
image decides what is executed: ``/proc/self/exe``, or a script that names it,
is that interpreter's file (CVE-2019-5736). Root's file cannot be changed from
inside. One that belongs to the user can, since the container's root is the
user: then PID 1 first executes it anew from a read-only mount. Called by the
container's init, as its first act.
"""

from __future__ import annotations

import os
import sys

from rootless.kernel import mounts, syscalls
from rootless.kernel.userns import Maps


def is_changeable(maps: Maps) -> bool:
    """Tell whether our interpreter's file belongs to somebody in a namespace with these maps.

    To be asked outside of it.
    """
    owner = os.stat("/proc/self/exe").st_uid
    return any(0 <= owner - entry.outside < entry.size for entry in maps.uids)


def execute_read_only(module: str, *arguments: str) -> None:
    """Execute ``module`` in our interpreter, mounted read-only over itself.

    In a mount namespace of the caller's own. The mount is taken along by the
    process, wherever its root is later.
    """
    path = os.path.realpath("/proc/self/exe")
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    tree = syscalls.open_tree(path, syscalls.OPEN_TREE_CLONE)
    mounts.attach(tree, target, mounts.parse_options(("bind", "ro", "nosuid", "nodev")))
    os.close(target)
    search = os.pathsep.join(filter(os.path.isabs, sys.path))
    # By the name we were started with, which is how it finds its library.
    program = [sys.executable, "-s", "-P", "-m", module, *arguments]
    os.execve(path, program, {**os.environ, "PYTHONPATH": search})
