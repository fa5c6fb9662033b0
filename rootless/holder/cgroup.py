"""The cgroup of rl-holder: none of a container's, and of no login, for it outlives both.

Owns where it is, beside those of the containers, and its end. Where there is none to be had it
stays where it was started. Called by ``start`` and ``server``.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from rootless.cgroups import place, tree

_NAME: Final = "rl-holder"
# Where ``cgroups.group`` keeps what was there before our containers.
_OTHERS: Final = "rl-others"


def move(pid: int, beside: str) -> None:
    """Move the holder to a cgroup of its own; OSError or RlError where that fails.

    ``beside`` is the cgroup of the container that needs it, "" for one without.
    """
    if beside and not tree.is_scope(beside):
        directory = f"{os.path.dirname(beside)}/{_NAME}"
        os.makedirs(directory, exist_ok=True)
        tree.write(f"{directory}/cgroup.procs", str(pid))
    elif bus := place.bus(os.getuid()):
        from rootless.cgroups import systemd

        with systemd.connected(bus) as manager:
            name = f"{_NAME}-{pid}.scope"
            manager.start_scope(name, "what containers share", [pid], systemd.SLICE, None)


def leave() -> None:
    """Leave it for one above and remove it; systemd does so with its own."""
    own = f"{place.mount_point()}{place.own_cgroup('self')}"
    if os.path.basename(own) != _NAME:
        return
    all_ours = os.path.dirname(own)
    above = os.path.dirname(all_ours)
    for directory in (f"{above}/{_OTHERS}", above):
        with contextlib.suppress(OSError):
            tree.write(f"{directory}/cgroup.procs", "0")
            break
    os.rmdir(own)
    # With the last of them all the common parent goes as well.
    os.rmdir(all_ours)
