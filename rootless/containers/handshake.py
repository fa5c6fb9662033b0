"""What a process of ours on its way into a container and whoever started it tell each other.

Owns the messages that both PID 1 and those who join it use: go, and what
failed. Called by ``init``, ``join`` and ``view``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from rootless.channel import Channel
from rootless.errors import RlError

# Characters of an error: it may quote an argument of any length.
_LONGEST: Final = 1000

# Docker's exit code for what failed before there was a command.
FAILED: Final = 125


@contextlib.contextmanager
def failures_sent(channel: Channel) -> Iterator[None]:
    """Send what fails in this block to the supervisor."""
    try:
        yield
    except RlError as error:
        channel.send({"error": str(error)[:_LONGEST], "exit_code": error.exit_code})
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        text = f"cannot set up the container: {error.strerror}{where}"
        channel.send({"error": text[:_LONGEST], "exit_code": FAILED, "errno": error.errno})
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}"
        channel.send({"error": text[:_LONGEST], "exit_code": FAILED})


def wait_for_go(channel: Channel) -> None:
    """Wait for the supervisor's go-ahead; without it there is nobody to run for."""
    message, _ = channel.receive()
    if message is None:
        os._exit(FAILED)
