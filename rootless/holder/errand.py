"""What the holder has done by a child: in another network namespace, or by what may fail or hang.

A child is let loose on one function, has so long for it, and answers with a message. So the holder
stays where it is, and whole. Called by the holder's services.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable
from typing import Final

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.kernel import process
from rootless.kernel.polling import wait

# What a loaded machine may take; the holder answers nobody meanwhile.
_PATIENCE_SECONDS: Final = 60.0


def run(
    function: Callable[[Channel], None], flags: int = 0, keep: Iterable[int] = ()
) -> list[list[int]]:
    """Run ``function`` in a child with new namespaces of ``flags``; it keeps only the ``keep``.

    Returns the descriptors of each message that it sent. RlError where it fails.
    """
    channel, theirs = Channel.pair()

    def main() -> int:
        process.die_with_parent()
        try:
            function(theirs)
        except (RlError, OSError) as error:
            theirs.send({"error": str(error)})
        except Exception as error:
            theirs.send({"error": f"{type(error).__name__}: {error}"})
        else:
            theirs.send({"done": True})
        return 0

    child = process.fork(main, flags, keep=[theirs.fileno(), *keep])
    theirs.close()
    given: list[list[int]] = []
    error = "it took too long"
    try:
        while wait({channel.fileno(): select.POLLIN}, _PATIENCE_SECONDS):
            message, fds = channel.receive()
            if message is None:
                error = "a helper process ended"
                break
            if "done" in message:
                return given
            if "error" in message:
                error = message["error"]
                break
            given.append(fds)
    finally:
        child.kill()
        child.wait()
        channel.close()
    for fds in given:
        close(fds)
    raise RlError(error)


def close(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
