"""The life of one container, from clone to its last exit code.

Starts the overlay server and PID 1, gives each what the other must have, then
carries streams, log and signals until the end, records it, and begins again
where the restart policy says so. Whichever of the processes dies, the others
follow: the supervisor kills PID 1 when the overlay server is gone, the overlay
server does when the supervisor is gone, and with PID 1 its whole PID namespace
and every mount end.

A process of its own (``launch`` forks it), single-threaded, without a terminal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rootless.channel import Channel
from rootless.containers import cgroup, disk, health, idmaps, log, restart
from rootless.containers.clone import clone
from rootless.containers.console import Console, Onlooker
from rootless.containers.network import prepare, user_networks
from rootless.containers.overlay import Server
from rootless.containers.record import Record
from rootless.containers.sharing import Sharing
from rootless.containers.starting import Start
from rootless.containers.store import Container, ContainerStore
from rootless.containers.streams import Streams
from rootless.errors import RlError
from rootless.kernel import process, userns
from rootless.kernel.polling import wait

if TYPE_CHECKING:
    from rootless.cgroups.group import Group
    from rootless.containers.monitor import Monitor
    from rootless.containers.strays import Strays
    from rootless.networks.user import Attachment, Network


def supervise(
    containers: ContainerStore,
    container: Container,
    layers: Sequence[Path],
    server: Server,
    owner: Onlooker,
) -> None:
    """Run a container to its end; ``owner`` is told how it starts and how it ends.

    ``layers`` are its unpacked layers from the bottom to the top; ``server`` is new.
    """
    _Supervisor(containers, container, layers, owner).supervise(server)


class _Supervisor:
    """One container with its onlookers, over all its runs."""

    def __init__(
        self,
        containers: ContainerStore,
        container: Container,
        layers: Sequence[Path],
        owner: Onlooker,
    ) -> None:
        request = container.extra.request
        self._containers = containers
        self._root = containers.root
        self._container = container
        self._layers = layers
        self._record = Record(containers, container)
        self._group: Group | None = None
        self._console = Console(container.path, owner)
        self._maps = idmaps.maps_of(container.config)
        self._check = health.Check.of(container.extra.healthcheck)
        self._logging = request.get("log_driver", "json-file") != "none"
        self._restarts = 0
        self._began = 0.0

    def supervise(self, server: Server) -> None:
        signal.signal(signal.SIGTERM, self._terminate)
        pause = 0.0
        while True:
            code, error = self._run_once(server)
            again = self._began > 0 and self._again(code)
            if not again:
                break
            self._console.finish(code, error)
            pause = restart.delay(pause, time.monotonic() - self._began)
            if not self._pause(pause):
                self._record.ended(code, stopped=self._console.asked)
                break
            self._restarts += 1
            self._record.restarted(self._restarts)
            server = Server()
        if self._container.auto_remove:
            from rootless.containers.remove import remove_own

            remove_own(self._root, self._container.id)
        if self._group is not None:
            self._group.leave()
        self._console.finish(code, error)
        self._console.close()

    def _terminate(self, number: int, _: object) -> None:
        # The machine goes down, or the session ends.
        self._console.stopped = True
        if self._console.child is not None:
            self._console.child.send_signal(number)

    def _again(self, code: int) -> bool:
        policy = restart.Policy.parse(self._record.restart())
        return not self._console.stopped and policy.again(code, self._restarts)

    def _pause(self, seconds: float) -> bool:
        """Wait before a restart; False if it is not wanted any more."""
        deadline = time.monotonic() + seconds
        while not self._console.stopped and (rest := deadline - time.monotonic()) > 0:
            self._console.advance(wait(self._console.interests(), rest))
        return not self._console.stopped

    def _monitor(self, stack: contextlib.ExitStack) -> Monitor | None:
        """Begin to check the container's health, where that is to be done."""
        if self._check is None:
            return None
        from rootless.containers.monitor import Monitor

        monitor = Monitor(self._record.container, self._check)
        stack.callback(monitor.close)
        return monitor

    def _run_once(self, server: Server) -> tuple[int, str]:
        """Run the container once, with ``server``, and return its exit code and what failed."""
        try:
            with server:
                group = self._enter_group(server)
                container = self._record.container
                networks = user_networks(self._containers, container)
                sharing = Sharing(self._root, container, connected=bool(networks))
                with closing(sharing):
                    self._join(sharing)
                    return self._run(server, group, sharing, networks), ""
        except RlError as error:
            self._record.ended(error.exit_code, again=self._began > 0 and self._again(125))
            self._record.failed(error)
            return error.exit_code, str(error)

    def _run(
        self,
        server: Server,
        group: Group | None,
        sharing: Sharing,
        networks: Sequence[tuple[Network, Attachment]],
    ) -> int:
        spec, path = self._container.config, self._container.path
        network, ports = prepare(self._container, networks, sharing.holder, self._record.published)
        request = self._container.extra.request
        writer = self._open_log(path) if self._logging else None
        streams = Streams(
            terminal=request["terminal"], interactive=request["interactive"], writer=writer
        )
        channel, theirs = Channel.pair()
        child = clone(spec, streams, theirs, group.prepare() if group else -1, sharing)
        with (
            closing(network),
            _killed_at_the_end(child, channel, streams, writer, group),
            contextlib.ExitStack() as stack,
        ):
            start = Start(child, channel, server, network, self._console, sharing)
            start.agreed = self._restarts > 0
            sharing.write_maps(child, self._maps)
            channel.send({"go": True})
            strays = self._strays(start, stack)
            # The overlay server shares a user namespace only with processes that cannot see it.
            hidden = strays is None and sharing.joined is None
            fuse, *connection = start.expect("fuse")
            if connection:
                network.start(*connection)
            server.serve(
                lower=[str(layer) for layer in reversed(self._layers)],
                upper=str(path / "upper"),
                work=str(path / "work"),
                log=str(path / "overlay.log"),
                disk=disk.of(self._record.container),
                pidfd=child.pidfd,
                fuse=fuse,
                **idmaps.serving(self._maps, userns.storage_maps(), hidden=hidden),
            )
            os.close(fuse)
            streams.connect(start.expect("ready"))
            start.expect_network()
            if not start.agreed:
                self._console.agree()
                start.agreed = True
            if group is not None:
                # Only now: what it took to set the container up is not the container's.
                group.apply(cgroup.to_apply(self._record.container))
            self._console.connect(streams, child, server, network)
            if self._check is not None:
                from rootless.containers import healthstate

                healthstate.begin(self._container)
            self._record.started(child.pid, ports)
            channel.send({"start": True})
            return self._carry(streams, start, stack, strays)

    def _open_log(self, path: Path) -> log.Writer:
        limits = log.Limits.parse(self._container.extra.request.get("log_options", {}))
        return log.Writer(log.path(path), limits, self._console.rotated)

    def _enter_group(self, server: Server) -> Group | None:
        """Come into a cgroup of the container's with the server, once and for all runs."""
        if self._group is None:
            container = self._record.container
            self._group = cgroup.make(container, [os.getpid(), server.pid], self._record.placed)
        return self._group

    def _join(self, sharing: Sharing) -> None:
        """Join other containers, if there are any to be joined."""
        if not self._container.owns_processes and self._container.state.started_at:
            from rootless.containers.strays import kill_leftovers

            kill_leftovers(self._container.id)
        if self._container.extra.joined:
            sharing.join(self._containers, self._container)

    def _strays(self, start: Start, stack: contextlib.ExitStack) -> Strays | None:
        """Return the search for what PID 1 leaves behind, where there is no PID namespace.

        All of it is killed when the ``stack`` is left.
        """
        if self._container.owns_processes:
            return None
        from rootless.containers import strays

        found: Strays
        if "pid" in self._container.shared:
            found = strays.OfHost(start.child.pid)
        else:
            found = strays.OfOthers(self._container.id, *start.expect("mounts"))
        stack.callback(found.close)
        stack.callback(found.kill)
        return found

    def _carry(
        self,
        streams: Streams,
        start: Start,
        stack: contextlib.ExitStack,
        strays: Strays | None,
    ) -> int:
        """Carry the streams until PID 1 has ended, and return its exit code.

        What it wrote last is in the log then, but may still be on the way to whoever reads it.
        """
        child, channel, console = start.child, start.channel, self._console
        executing = True
        monitor: Monitor | None = None
        failure: RlError | None = None
        while child.running:
            interests = streams.interests()
            for fd, events in console.interests().items():
                interests[fd] = interests.get(fd, 0) | events
            interests |= {child.pidfd: select.POLLIN} | start.watched()
            if executing:
                interests[channel.fileno()] = select.POLLIN
            if self._group is not None:
                interests |= self._group.watched()
            if monitor is not None:
                interests |= monitor.interests()
            ready = wait(interests, monitor.seconds() if monitor is not None else None)
            if executing and child.pidfd in ready:
                # What it said before it ended comes first.
                ready |= wait({channel.fileno(): select.POLLIN}, 0)
            try:
                if executing and channel.fileno() in ready:
                    # The end of file says that the command was executed.
                    executing = False
                    message, _ = channel.receive()
                    if message is not None:
                        failure = start.failure(message)
                    else:
                        self._began = time.monotonic()
                        self._record.executed()
                        _leave_stderr(self._container.path / "supervisor.log")
                        console.started()
                        monitor = self._monitor(stack)
                start.check()
                if child.pidfd not in ready:
                    start.network.advance()
            except RlError as error:
                failure = error
                child.kill()
            console.failed(streams.advance(ready))
            console.advance(ready)
            if monitor is not None:
                monitor.advance(ready)
            if self._group is not None and self._group.ran_out():
                self._record.out_of_memory()
            if child.pidfd in ready:
                child.wait()
                start.network.end()
                if strays is not None:
                    strays.kill()
                streams.drain()
                # Whoever stopped it had said so before.
                console.hear_all()
                console.run_ended()
                oom = self._group is not None and self._group.end_run()
                if failure is None:
                    code = child.wait()
                    again = self._again(code)
                    self._record.ended(code, again=again, stopped=console.asked, oom=oom)
        if failure is not None:
            raise failure
        return child.wait()


def _leave_stderr(file: Path) -> None:
    """Leave the stderr of whoever started us; what still comes is a defect of ours."""
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(opened, 2)
    os.close(opened)


@contextlib.contextmanager
def _killed_at_the_end(
    child: process.Child,
    channel: Channel,
    streams: Streams,
    writer: log.Writer | None,
    group: Group | None,
) -> Iterator[None]:
    try:
        yield
    finally:
        child.kill()
        child.wait()
        if group is not None:
            group.end_run()
        channel.close()
        streams.close()
        if writer is not None:
            writer.close()
