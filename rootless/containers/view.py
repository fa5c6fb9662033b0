"""A process of ours that sees a container's file system: what `rl cp` and `rl export` work in.

It is root of the container's user namespace, in a mount namespace of its own: the host's, with the
container's tree mounted on ``merged``. So everything that it loads is the host's, and no process of
the container sees it. Of a running container the tree is a copy of its mounts; for one that does
not run, the overlay is mounted and served here. Owns that, and nothing of what is done in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from rootless.channel import Channel
from rootless.containers import disk, enter, handshake, idmaps, init, rootfs
from rootless.containers.annotation import read_extra
from rootless.containers.carrier import Carrier, failures_sent, serve
from rootless.containers.overlay import Server
from rootless.containers.sharing import Sharing
from rootless.containers.store import Container, unless_removed
from rootless.errors import RlError
from rootless.kernel import mounts, process, syscalls, userns


@contextlib.contextmanager
def opened(
    container: Container, layers: Sequence[Path], *, bare: bool = False, sides: int = 1
) -> Iterator[list[Carrier]]:
    """Give as many processes that see ``container`` as ``sides``.

    ``layers`` are the unpacked ones from the bottom to the top. ``bare``: without what is mounted
    in the container.
    """
    pairs = [Channel.pair() for _ in range(sides)]
    channel = pairs[0][0]
    theirs = [pair[1] for pair in pairs]
    with unless_removed(container), contextlib.ExitStack() as cleanup:
        for ours, _ in pairs:
            cleanup.callback(ours.close)
        if container.state.status == "running":
            with enter.while_running(container):
                child = _see_running(container, theirs, bare=bare)
            cleanup.callback(_end, child)
        elif container.state.status == "restarting":
            raise container.not_running()
        elif container.active:
            raise RlError(f"container {container.name} is just being started, try again")
        else:
            cleanup.enter_context(_only_viewer(container))
            server = cleanup.enter_context(Server())
            sharing = cleanup.enter_context(contextlib.closing(_sharing(container, bare=bare)))
            maps = idmaps.maps_of(container.config)
            child = _see_stopped(container, theirs, sharing, bare=bare)
            cleanup.callback(_end, child)
            sharing.write_maps(child, maps)
            channel.send({"go": True})
            message, fds = channel.receive()
            if message is None or "fuse" not in message:
                raise RlError(str((message or {}).get("error", "a process of ours ended")))
            server.serve(
                lower=[str(layer) for layer in reversed(layers)],
                upper=str(container.path / "upper"),
                work=str(container.path / "work"),
                log=str(container.path / "overlay.log"),
                disk=disk.of(container),
                pidfd=child.pidfd,
                fuse=fds[0],
                runs=False,
                **idmaps.serving(maps, userns.storage_maps()),
            )
            os.close(fds[0])
        name = f"container {container.name}"
        yield [Carrier(ours, name) for ours, _ in pairs]


def _end(child: process.Child) -> None:
    child.kill()
    child.wait()


@contextlib.contextmanager
def _only_viewer(container: Container) -> Iterator[None]:
    """Wait for others who look at the same container: its overlay can be served once."""
    held = os.open(container.path / "merged", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _see_running(container: Container, theirs: Sequence[Channel], *, bare: bool) -> process.Child:
    pidfd = enter.open_init(container)
    merged = container.config["root"]["path"]

    def main() -> int:
        with failures_sent(theirs[0]):
            syscalls.setns(pidfd, syscalls.CLONE_NEWUSER)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            _keep_mounts_private()
            target = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            syscalls.become_root()
            # A container that shares our PID namespace must not reach us. Last, since a change of
            # identity may undo it.
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
            tree = _copy_tree(pidfd, recursive=not bare)
            syscalls.move_mount(tree, target)
            _serve_all(tree, theirs)
        return 0

    try:
        return process.fork(main, keep=[pidfd, *_descriptors(theirs)])
    finally:
        os.close(pidfd)
        _close(theirs)


def _copy_tree(pidfd: int, *, recursive: bool) -> int:
    """Return the mounts of a container as a tree that is mounted nowhere.

    Taken by a process that joins for that, and executes nothing there.
    """
    here, there = Channel.pair()

    def main() -> int:
        # A traceback would be made of files that are the container's.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with failures_sent(there):
            syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
            flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if recursive else 0)
            there.send({"tree": True}, syscalls.open_tree("/", flags))
        return 0

    child = process.fork(main, keep=[pidfd, there.fileno()])
    there.close()
    message, fds = here.receive()
    child.wait()
    here.close()
    if not fds:
        raise RlError(f"its file system cannot be reached: {(message or {}).get('error')}")
    return fds[0]


def _sharing(container: Container, *, bare: bool) -> Sharing:
    return Sharing(container.path.parent.parent, None if bare else container)


def _see_stopped(
    container: Container, theirs: Sequence[Channel], sharing: Sharing, *, bare: bool
) -> process.Child:
    spec, trees = container.config, dict(sharing.trees)

    def main() -> int:
        with failures_sent(theirs[0]):
            handshake.wait_for_go(theirs[0])
            extra = read_extra(spec)
            _keep_mounts_private()
            # As the user himself, as init does it.
            sources = {} if bare else rootfs.open_sources(spec, extra, trees)
            fillings = {} if bare else rootfs.open_fillings(spec, extra)
            root, user = init.mount_root(spec, theirs[0]), os.getuid()
            syscalls.become_root()
            if not bare:
                outside = rootfs.Outside(
                    root, sources, user, fillings=fillings, detached=tuple(trees)
                )
                rootfs.mount_host_directories(spec, extra, outside)
            if spec["root"]["readonly"]:
                mounts.set_readonly(f"/proc/self/fd/{root}")
            _serve_all(root, theirs)
        return 0

    try:
        flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS
        maps = idmaps.maps_of(spec)
        return sharing.clone(main, flags, maps, keep=_descriptors(theirs))
    except OSError as error:
        raise userns.creation_error(error) from None
    finally:
        _close(theirs)


def _serve_all(root: int, channels: Sequence[Channel]) -> int:
    first, *others = channels
    if others:
        process.fork(lambda: _serve_all(root, others), keep=[root, *_descriptors(others)])
        _close(others)
    process.die_with_parent()
    os.umask(0)
    serve(root, first)
    return 0


def _descriptors(channels: Sequence[Channel]) -> list[int]:
    return [channel.fileno() for channel in channels]


def _close(channels: Sequence[Channel]) -> None:
    for channel in channels:
        channel.close()


def _keep_mounts_private() -> None:
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
