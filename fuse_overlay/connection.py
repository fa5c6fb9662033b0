"""The loop between /dev/fuse and `requests`: one request after the other, each answered once.

Never knows what a request means, but for INIT. Requests are handled in the thread that calls
`serve`, one at a time. One that has to wait for long work (`jobs`) is put aside and handled again
when the work is done; meanwhile the others go on.
"""

import errno
import functools
import os
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from fuse_overlay import abi
from fuse_overlay.abi import IN_HEADER, OUT_HEADER, Opcode
from fuse_overlay.jobs import Pending
from fuse_overlay.overlay import Overlay
from fuse_overlay.quota import LimitReached
from fuse_overlay.requests import Requests, init

if TYPE_CHECKING:
    from concurrent.futures import Future

_MAX_WRITE: Final = 1 << 18
_BODY: Final = IN_HEADER.size
_SPIN_NS: Final = 50_000
"""How long to go on asking for the next request before going to sleep: a program that makes one
makes more, and to be woken takes longer than to answer."""
_SHORT: Final = 4096
"""Bytes that are faster copied than gathered by the kernel."""
_UPKEEP: Final = 256
"""Requests between two looks at what memory and descriptors are in use."""


class _Request(NamedTuple):
    unique: int
    opcode: int
    nodeid: int
    uid: int
    gid: int
    body: memoryview


class Connection:
    """Serves `overlay` on `fd`, a /dev/fuse descriptor that is mounted. Takes `fd` over.

    With `writeback` the kernel collects writes (FUSE_WRITEBACK_CACHE), unless there is a disk
    limit, which each write has to meet. `requests` counts requests
    by opcode.
    """

    def __init__(
        self, fd: int, overlay: Overlay, *, writeback: bool = True, debug: bool = False
    ) -> None:
        self._fd = fd
        self._overlay = overlay
        self._writeback = writeback and not overlay.read_only and not overlay.limited
        self._handlers = Requests(overlay, writeback=self._writeback).handlers
        self._buffer = bytearray(_BODY + abi.WRITE_IN.size + _MAX_WRITE)
        self._view = memoryview(self._buffer)
        self._limited = overlay.limited
        self._debug = debug
        self._ready: deque[_Request] = deque()
        self._late: deque[_Request] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = False
        self.requests: Counter[int] = Counter()
        os.set_blocking(fd, False)

    def handshake(self) -> None:
        """Answer INIT, which a mount begins with: from then on it can be used.

        Raises OSError: EPROTO where the kernel is too old, ENODEV where the mount is gone.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll()
        length = os.readv(self._fd, [self._buffer])
        _, opcode, unique, *_ = IN_HEADER.unpack_from(self._buffer)
        if opcode != Opcode.INIT:
            raise OSError(errno.EPROTO, "the mount is in use by another server")
        body = self._view[_BODY:length]
        answer = init(body, writeback=self._writeback, max_write=_MAX_WRITE)
        if answer is None:
            self._fail(unique, errno.EPROTO)
            raise OSError(errno.EPROTO, "the kernel's FUSE is too old: Linux 5.13 is needed")
        self._reply(unique, answer)

    def serve(self, watched: Mapping[int, Callable[[], bool]] | None = None) -> bool:
        """Answer requests until the file system is unmounted (True) or `stop` is called (False).

        When one of the `watched` descriptors becomes readable, its function is called; it returns
        whether to go on watching.
        """
        watched = dict(watched or {})
        poll = select.poll()
        for fd in (self._fd, self._wake, *watched):
            poll.register(fd, select.POLLIN)
        device, buffers, view = self._fd, [self._buffer], self._view
        read, unpack, handle = os.readv, IN_HEADER.unpack_from, self._handle
        upkeep = _UPKEEP
        idle_since = 0
        while not self._stopped:
            try:
                length = read(device, buffers)
            except BlockingIOError:
                if self._ready or self._late:
                    self._catch_up()
                elif not idle_since:
                    idle_since = time.perf_counter_ns()
                elif time.perf_counter_ns() - idle_since > _SPIN_NS:
                    self._look(poll, watched)
                    idle_since = 0
                else:
                    os.sched_yield()
                continue
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return True
                if error.errno not in (errno.EINTR, errno.ENOENT):  # ENOENT: it was interrupted
                    raise
                continue
            idle_since = 0
            _, opcode, unique, nodeid, uid, gid, _, _, _ = unpack(view)
            handle(unique, opcode, nodeid, uid, gid, view[_BODY:length])
            if self._ready:  # one for each, so that neither kind starves the other
                handle(*self._ready.popleft())
            upkeep -= 1
            if not upkeep:
                upkeep = _UPKEEP
                self._overlay.trim()
                # Who never lets us sleep must not keep others from us.
                self._look(poll, watched, 0)
        return False

    def stop(self) -> None:
        """Let `serve` return when the request at hand is answered. May be called by a signal
        handler.
        """
        self._stopped = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close the connection; the mount, if it is still there, answers ENOTCONN from then on."""
        os.close(self._fd)
        os.close(self._wake)

    def _catch_up(self) -> None:
        """Handle what was put aside: nothing else waits now."""
        if self._ready:
            self._handle(*self._ready.popleft())
        elif self._late:
            self._handle(*self._late.popleft(), last=True)

    def _look(
        self,
        poll: select.poll,
        watched: dict[int, Callable[[], bool]],
        timeout: int | None = None,
    ) -> None:
        """Wait until something comes, for ``timeout`` milliseconds at most."""
        for fd, _ in poll.poll(timeout):
            if fd == self._wake:
                os.eventfd_read(self._wake)
            elif fd in watched and not watched[fd]():
                poll.unregister(fd)
                del watched[fd]

    def _handle(
        self,
        unique: int,
        opcode: int,
        nodeid: int,
        uid: int,
        gid: int,
        body: memoryview,
        *,
        last: bool = False,
    ) -> None:
        """Answer a request. `last`: it is not to be put aside again."""
        self.requests[opcode] += not last
        handler = self._handlers.get(opcode)
        if handler is None:
            self._fail(unique, errno.ENOSYS)
            return
        try:
            if self._limited and opcode == Opcode.STATFS and not last:
                raise LimitReached
            try:
                reply = handler(nodeid, uid, gid, body)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                self._overlay.trim()
                reply = handler(nodeid, uid, gid, body)
        except Pending as pending:
            waiting = _Request(unique, opcode, nodeid, uid, gid, memoryview(bytes(body)))
            pending.job.add_done_callback(functools.partial(self._resume, waiting))
            return
        except OSError as error:
            if isinstance(error, LimitReached) and not last:
                # What was removed just now counts in the disk limit until it is forgotten, and the
                # kernel sends FORGET later than other requests: when nothing else waits, again.
                waiting = _Request(unique, opcode, nodeid, uid, gid, memoryview(bytes(body)))
                self._late.append(waiting)
                return
            self._fail(unique, error.errno or errno.EIO)
            if self._debug or error.errno is None:
                _log(opcode, nodeid, error)
            return
        except Exception as error:
            self._fail(unique, errno.EIO)
            _log(opcode, nodeid, error)
            return
        while self._overlay.modes_changed:
            # The kernel would go by the set-id bits that it knows (HANDLE_KILLPRIV_V2).
            number = self._overlay.modes_changed.pop()
            self._notify(abi.NOTIFY_INVAL_INODE, abi.NOTIFY_INVAL_INODE_OUT.pack(number, -1, 0))
        if isinstance(reply, bytes):
            self._reply(unique, reply)
        elif isinstance(reply, list):
            self._reply(unique, b"".join(reply))
        elif reply is not None:
            reply.add_done_callback(functools.partial(self._reply_later, unique))
        if self._debug:
            _log(opcode, nodeid)

    def _resume(self, request: _Request, _: object) -> None:
        self._ready.append(request)
        os.eventfd_write(self._wake, 1)

    def _reply_later(self, unique: int, job: "Future[None]") -> None:
        error = job.exception()
        if error is None:
            self._reply(unique, b"")
        else:
            self._fail(unique, (error.errno if isinstance(error, OSError) else 0) or errno.EIO)

    def _reply(self, unique: int, payload: bytes) -> None:
        header = OUT_HEADER.pack(OUT_HEADER.size + len(payload), 0, unique)
        if len(payload) < _SHORT:
            self._send(header + payload)
        else:
            self._send(header, payload)

    def _notify(self, code: int, payload: bytes) -> None:
        self._send(OUT_HEADER.pack(OUT_HEADER.size + len(payload), code, 0) + payload)

    def _fail(self, unique: int, number: int) -> None:
        # Beyond 511 are the kernel's own numbers, which it does not take from us.
        number = number if 0 < number < 512 else errno.EIO
        self._send(OUT_HEADER.pack(OUT_HEADER.size, -number, unique))

    def _send(self, *parts: bytes) -> None:
        try:
            if len(parts) == 1:
                os.write(self._fd, parts[0])
            else:
                os.writev(self._fd, parts)
        except OSError as error:
            # ENOENT: the program that asked is gone; ENODEV: the mount is.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                _log(0, 0, RuntimeError(f"cannot answer: {error}"))


def _log(opcode: int, nodeid: int, error: Exception | None = None) -> None:
    """Log a request; with its traceback, if its error is one that nobody expected."""
    import logging

    name = Opcode(opcode).name if opcode in Opcode._value2member_map_ else str(opcode)
    log = logging.getLogger(__name__)
    if error is None:
        log.debug("%s %d", name, nodeid)
    elif isinstance(error, OSError) and error.errno is not None:
        log.debug("%s %d: %s", name, nodeid, error)
    else:
        log.error("%s %d failed", name, nodeid, exc_info=error)
