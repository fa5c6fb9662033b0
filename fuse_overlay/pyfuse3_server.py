"""The other way to serve an Overlay: pyfuse3 and trio, behind the option server=pyfuse3.

One server in a process (pyfuse3 has one session). Called by `command`.
"""

import select
import signal

import pyfuse3
import trio

from fuse_overlay.overlay import Overlay
from fuse_overlay.pyfuse3_operations import Operations

_BUSY_MS = 1
"""How long to wait for the next request before the task is parked: trio takes longer to wake it."""


def start(overlay: Overlay, fd: int, *, debug: bool) -> None:
    """Open the session on the mounted /dev/fuse descriptor `fd`. Raises RuntimeError."""
    pyfuse3.trio = _Loop()  # type: ignore[attr-defined]
    pyfuse3.init(Operations(overlay), f"/dev/fd/{fd}", {"debug"} if debug else set())


async def serve_until_signalled() -> bool:
    """Answer requests of the session that was started, until unmounted (True), or SIGTERM, SIGINT
    or SIGHUP (False). A failure is raised as itself, not as a group of one.
    """
    unmounted = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_at_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_at_signal)
            try:
                await pyfuse3.main(min_tasks=1)
            except BaseExceptionGroup as group:
                raise _single(group) from None
            finally:
                pyfuse3.close(unmount=False)
            unmounted = True
            nursery.cancel_scope.cancel()
    return unmounted


class _Loop:
    """What pyfuse3 uses of trio, with a wait for requests that polls before it parks the task."""

    def __init__(self) -> None:
        self.lowlevel = self

    def __getattr__(self, name: str) -> object:
        return getattr(trio, name, None) or getattr(trio.lowlevel, name)

    async def wait_readable(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(_BUSY_MS):
            await trio.lowlevel.wait_readable(fd)


def _single(error: BaseException) -> BaseException:
    """The one exception in a group of one, at any depth; else the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
