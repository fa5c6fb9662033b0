"""Descriptors are waited for, for as long as one likes.

Owns poll(2) and its limits, and no descriptor. Called by all that wait for more than one thing, or
not for ever.
"""

from __future__ import annotations

import select
from typing import Final

# What poll takes: 24.8 days.
_LONGEST_POLL_MILLISECONDS: Final = (1 << 31) - 1


def wait(interests: dict[int, int], seconds: float | None = None) -> set[int]:
    """Return those of ``interests`` (descriptor -> poll events) that are ready, none in time."""
    poll = select.poll()
    for fd, events in interests.items():
        poll.register(fd, events)
    if seconds is None:
        return {fd for fd, _ in poll.poll()}
    rest = seconds * 1000
    while True:
        ready = poll.poll(min(rest, _LONGEST_POLL_MILLISECONDS))
        rest -= _LONGEST_POLL_MILLISECONDS
        if ready or rest <= 0:
            return {fd for fd, _ in ready}
