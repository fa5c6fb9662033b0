"""Waiting for what has to come, as long as a slow and busy machine may take for it.

Asks again and again. Used by all tests; what the kernel can tell is better waited for in a poll.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds after which something counts as missing. No test depends on how long it takes."""


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return when ``condition`` holds; AssertionError if it does not come to."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} seconds"
        time.sleep(0.02)
