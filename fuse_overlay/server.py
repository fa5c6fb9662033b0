"""Serves an Overlay to the kernel until it is unmounted or the task is cancelled.

One server in a process (pyfuse3 has one session). Called by `command`, and by whoever mounts for a
container.
"""

import signal

import pyfuse3
import trio

from fuse_overlay.overlay import Overlay
from fuse_overlay.protocol import Operations


async def serve(overlay: Overlay, fuse_fd: int) -> None:
    """Serve the file system mounted on the /dev/fuse descriptor `fuse_fd` until it is unmounted.

    Needs no fusermount3. Cancellation ends it between two requests: each is then done or was never
    begun. `fuse_fd` is taken over and closed in every case, which makes later accesses to the mount
    fail with ENOTCONN; unmounting is the caller's. `overlay` stays open. A failure is raised as
    itself, not as a group of one.
    """
    start(overlay, f"/dev/fd/{fuse_fd}", set())
    await _serve_session(unmount=False)


def start(overlay: Overlay, mountpoint: str, options: set[str]) -> None:
    """Open the session, through fusermount3 if `mountpoint` is a directory.

    Raises RuntimeError.
    """
    pyfuse3.init(Operations(overlay), mountpoint, options)


async def serve_until_signalled() -> bool:
    """Answer requests of the session that was started, until unmounted, SIGTERM, SIGINT or SIGHUP.

    Returns whether it was unmounted. What fusermount3 mounted is unmounted here.
    """
    unmounted = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_at_signal)
            await _serve_session(unmount=True)
            unmounted = True
            nursery.cancel_scope.cancel()
    return unmounted


async def _serve_session(*, unmount: bool) -> None:
    try:
        await pyfuse3.main()
    except BaseExceptionGroup as group:
        raise _single(group) from None
    finally:
        pyfuse3.close(unmount=unmount)


def _single(error: BaseException) -> BaseException:
    """The one exception in a group of one, at any depth; else the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
