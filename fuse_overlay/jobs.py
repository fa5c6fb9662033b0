"""Work that takes long, done in threads while requests go on: copying large files, syncing.

What is given to `submit` touches descriptors only, no state of the overlay. Called by `copyup` and
`overlay`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_WORKERS: Final = 4


class Pending(Exception):
    """An operation needs the result of `job` first. It has changed nothing that can be seen, and is
    to be called again when the job is done.
    """

    def __init__(self, job: Future[None]) -> None:
        super().__init__()
        self.job = job


class Jobs:
    """Threads, made when they are first needed."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[[], None]) -> Future[None]:
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(_WORKERS, "fuse-overlay")
        return self._executor.submit(function)

    def close(self) -> None:
        """Wait for what has begun, and drop the rest."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
