"""What is written down of a container while it runs: its state on disk, and its events.

Called by the supervisor as the container's life goes on. A container that was
removed by force meanwhile has nothing to be written any more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from rootless.containers.announce import announce
from rootless.containers.state import Process, now
from rootless.containers.store import Container, ContainerStore
from rootless.errors import ContainerNotFound, RlError
from rootless.networks.ports import Port


class Record:
    """The state on disk, as the container's life goes on, and its events."""

    def __init__(self, containers: ContainerStore, container: Container) -> None:
        self._containers = containers
        self.container = container
        self._executed_at: float | None = None

    def started(self, pid: int, ports: Sequence[Port]) -> None:
        self._update(
            status="running", started_at=now(), finished_at="", exit_code=0, error="",
            init=Process.of(pid), ports=tuple(ports),
        )  # fmt: skip

    def published(self, ports: Sequence[Port]) -> None:
        self._update(ports=tuple(ports))

    def executed(self) -> None:
        self._executed_at = time.monotonic()
        announce(self.container, "start")

    def ended(
        self, exit_code: int, *, again: bool = False, stopped: bool = False, oom: bool = False
    ) -> None:
        changes = {"exit_code": exit_code, "stopped": stopped, "oom_killed": oom}
        self._update(
            status="restarting" if again else "exited",
            finished_at=now(),
            init=None,
            ports=(),
            **changes,
        )
        if self._executed_at is not None:
            ran = str(int(time.monotonic() - self._executed_at))
            announce(self.container, "die", exitCode=str(exit_code), execDuration=ran)
            if self.container.state.networks:
                from rootless.containers import connections

                connections.ended(self._containers, self.container)
            self._executed_at = None

    def out_of_memory(self) -> None:
        announce(self.container, "oom")

    def placed(self, path: str) -> None:
        self._update(cgroup=path)

    def restart(self) -> str:
        """Return the restart policy, which `rl update` may have changed."""
        with contextlib.suppress(OSError):
            return self._containers.recorded(self.container).restart
        return "no"

    def restarted(self, count: int) -> None:
        self._update(restarts=count)

    def failed(self, error: RlError) -> None:
        self._update(error=str(error))

    def _update(self, **changes: object) -> None:
        with contextlib.suppress(ContainerNotFound):  # it was removed by force
            self.container = self._containers.update(self.container, **changes)
