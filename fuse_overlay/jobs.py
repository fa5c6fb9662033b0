"""Work that takes long, done in threads while requests go on: copying large files, syncing.

What is given to `submit` touches descriptors only, no state of the overlay. Called by `copyup` and
`overlay`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_WORKERS: Final = 4
_LONG_NS: Final = 1_000_000
"""Nanoseconds that all others may wait for a disk: a thread would take a part of that itself."""


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
        self._sync_ns = 0

    def submit(self, function: Callable[[], None]) -> Future[None]:
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(_WORKERS, "fuse-overlay")
        return self._executor.submit(function)

    def sync(self, fd: int, *, data_only: bool) -> Future[None] | None:
        """Sync a descriptor, in a thread if the last sync took long: the caller may close it.

        Returns None if it is done. Raises OSError.
        """
        if self._sync_ns <= _LONG_NS:
            self._sync(fd, data_only=data_only)
            return None
        copy = os.dup(fd)

        def job() -> None:
            try:
                self._sync(copy, data_only=data_only)
            finally:
                os.close(copy)

        return self.submit(job)

    def _sync(self, fd: int, *, data_only: bool) -> None:
        started = time.perf_counter_ns()
        try:
            (os.fdatasync if data_only else os.fsync)(fd)
        finally:
            self._sync_ns = time.perf_counter_ns() - started

    def close(self) -> None:
        """Wait for what has begun, and drop the rest."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
