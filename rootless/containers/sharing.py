"""What a container shares with others while it runs, and how it is cloned because of that.

What is shared is held by rl-holder, in whose user namespace the container is nested then; what is
another container's is joined. One that shares nothing, as nearly all, has no holder and is nested
nowhere. Called by the supervisor, and by `view` for a container that does not run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rootless.containers.store import Container, ContainerStore
from rootless.errors import RlError
from rootless.kernel import process, userns
from rootless.kernel.userns import Maps
from rootless.volumes.store import is_limited

if TYPE_CHECKING:
    from rootless.containers.joined import Joined
    from rootless.holder.client import Holder
    from rootless.kernel.nested import Outer
    from rootless.volumes.mounted import Mounted


class Sharing:
    """What one container has from the holder, until ``close``: nothing, for most.

    ``trees`` are mounts for it that are mounted nowhere yet, by their targets.
    """

    def __init__(self, root: Path, container: Container | None, *, connected: bool = False) -> None:
        """Have all that the container is to share; RlError where it cannot be had.

        None shares nothing. One that is ``connected`` to user networks is in the holder's care.
        """
        self.holder: Holder | None = None
        self.outer: Outer | None = None
        self.trees: dict[str, int] = {}
        self.joined: Joined | None = None
        self._volumes: Mounted | None = None
        limited = {} if container is None else _limited_volumes(container)
        if container is None or not (limited or connected):
            return
        from rootless.holder.client import Holder

        self.holder = Holder(root, container.state.cgroup)
        self.outer = self.holder.outer
        if not limited:
            return
        from rootless.volumes.mounted import Mounted

        try:
            self._volumes = Mounted(self.holder, limited)
            self.trees = self._volumes.trees
        except BaseException:
            self.close()
            raise

    def join(self, containers: ContainerStore, container: Container) -> None:
        """Have PID 1 begin in namespaces of other containers; RlError where one does not run."""
        from rootless.containers.joined import open_all

        if self.outer is not None:
            raise RlError(
                "a container that joins another one is in its user namespace: it cannot have a "
                "volume with a size or a network of rl network create"
            )
        self.joined = open_all(containers, container)
        self.trees = {**self.joined.trees}

    def clone(
        self,
        main: Callable[[], int],
        flags: int,
        maps: Maps,
        keep: Iterable[int],
        cgroup: int = -1,
    ) -> process.Child:
        """Run ``main`` in new namespaces, as ``process.fork``; it has ``trees``, we no longer."""
        keep = [*keep, *self.trees.values()]
        try:
            if self.joined is not None:
                return self.joined.clone(main, flags, keep, cgroup)
            if self.outer is None:
                return process.fork(main, flags, keep, cgroup)
            from rootless.kernel import nested

            return nested.fork(main, flags, maps, self.outer, keep, cgroup)
        finally:
            if self._volumes is not None:
                self._volumes.close_trees()
            if self.joined is not None:
                self.joined.close()

    def write_maps(self, child: process.Child, maps: Maps) -> None:
        """Map the ids of what was cloned, where that was not done with it."""
        if self.outer is None and self.joined is None:
            userns.write_maps(child.pid, maps)

    def watched(self) -> dict[int, int]:
        """Return what to poll for, to learn of the end of what is shared."""
        found: dict[int, int] = {}
        for part in (self.holder, self._volumes):
            if part is not None:
                found |= part.watched()
        return found

    def check(self) -> None:
        """Raise RlError if something that is shared has ended."""
        for part in (self._volumes, self.holder):
            if part is not None:
                part.check()

    def close(self) -> None:
        """Give all back."""
        if self.joined is not None:
            self.joined.close()
        for part in (self._volumes, self.holder):
            if part is not None:
                part.close()


def _limited_volumes(container: Container) -> dict[str, str]:
    """Return the directories of those of its volumes that have a limit, by their targets."""
    volumes = container.extra.volumes
    found = {}
    for mount in container.config["mounts"]:
        target = mount["destination"]
        if target in volumes and is_limited(directory := os.path.dirname(mount["source"])):
            found[target] = directory
    return found
