"""Looking on at a container from a terminal or a script, until it ends or the keys to leave come.

The other end of ``console``: hands our standard streams over, passes on keys,
signals and the size of the window, and knows the exit code at the end. Owns the
state of our terminal. Called by run, start and attach.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Collection, Iterator
from typing import Final

from rootless.channel import Channel
from rootless.containers.streams import Pump
from rootless.errors import RlError
from rootless.kernel.polling import wait

# Passed on to the container, as docker run does; stopping and continuing us is
# the terminal's business, and faults and broken pipes are our own.
_FORWARDED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGPROF,
    signal.SIGVTALRM,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGXCPU,
)

# What a shell says of a command that ended with its terminal.
_HUNG_UP: Final = 128 + signal.SIGHUP

# PID 1 may well ignore ^C; a person who insists means it.
_INTERRUPTS_TO_KILL: Final = 3

DEFAULT_KEYS: Final = "ctrl-p,ctrl-q"
_CONTROL: Final = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def parse_keys(text: str) -> bytes:
    """Read --detach-keys, ``ctrl-p,ctrl-q``; an empty text is no keys."""
    found = bytearray()
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            found += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and key[5].lower() in _CONTROL:
            found.append(_CONTROL.index(key[5].lower()))
        else:
            raise RlError(f"invalid detach keys {text!r}: expected such as {DEFAULT_KEYS}")
    return bytes(found)


class DetachKeys:
    """Looks for a sequence of keys in what is typed; holds back a beginning of it."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0
        self.found = False

    def pass_on(self, data: bytes) -> bytes:
        """Return what is to be passed on of ``data``; all from the sequence on is dropped."""
        if not self._keys:
            return data
        kept = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self.found = True
                    return bytes(kept)
                continue
            kept += self._keys[: self._matched]
            self._matched = int(byte == self._keys[0])
            if not self._matched:
                kept.append(byte)
        return bytes(kept)


class Typing(Pump):
    """Our standard input on its way into the pipe that was handed over."""

    def __init__(self, sink: int, keys: bytes) -> None:
        super().__init__(0, sink)
        self.keys = DetachKeys(keys)

    @property
    def left(self) -> bool:
        """Whether the keys to leave were typed, and all that came before them is passed on."""
        return self.keys.found and not self.pending

    def read(self) -> bytes:
        """Return what was typed, without keys to leave."""
        data = super().read()
        passed = self.keys.pass_on(data)
        if data and not passed:
            raise BlockingIOError
        return passed


class Onlooking:
    """Our streams and what becomes of them; ``handed`` are the descriptors for the supervisor."""

    def __init__(
        self,
        *,
        stdin: bool,
        outputs: Collection[str] = ("stdout", "stderr"),
        terminal: bool,
        keys: bytes = b"",
    ) -> None:
        self.handed: dict[str, int] = {}
        self._terminal = terminal
        self._typing: Typing | None = None
        self._hung_up = False
        self._at_terminal = terminal and stdin and os.isatty(0)
        if stdin:
            # Never the terminal itself: only we are in the job that may read it.
            self.handed["stdin"], ours = os.pipe()
            os.set_blocking(ours, False)
            self._typing = Typing(ours, keys if terminal else b"")
        if "stdout" in outputs:
            self.handed["stdout"] = 1
        if "stderr" in outputs and not terminal:
            self.handed["stderr"] = 2

    @property
    def shows(self) -> bool:
        """Whether anything of the container's output comes to us."""
        return not self.handed.keys().isdisjoint(("stdout", "stderr"))

    def close_handed(self) -> None:
        """Close what only the supervisor needs, once it has it."""
        if "stdin" in self.handed:
            os.close(self.handed["stdin"])

    def follow(self, channel: Channel, *, proxy: bool = True) -> int | None:
        """Look on until the container ends, and return its exit code; None if we left it.

        A container with a terminal goes on when ours is hung up: that ends just us, with 129.
        Raises RlError where it could not start or was cut off.
        """
        with contextlib.ExitStack() as stack:
            while True:
                interests = {channel.fileno(): select.POLLIN}
                if self._typing is not None:
                    fd, events = self._typing.interest()
                    interests[fd] = events
                ready = wait(interests)
                if channel.fileno() in ready:
                    message, _ = channel.receive()
                    if message is None:
                        if self._hung_up:
                            return _HUNG_UP
                        raise RlError("the container's supervisor ended unexpectedly")
                    if "exit_code" in message:
                        return _outcome(message)
                    if "ready" in message or "attached" in message:
                        if proxy:
                            stack.enter_context(_signals_forwarded(channel))
                        takes_keys = self._terminal and self._typing is not None
                        stack.enter_context(raw_terminal(enabled=takes_keys))
                        stack.enter_context(_window_followed(channel))
                    if "ready" in message:
                        channel.send({"start": True})
                    if self._terminal and ("ready" in message or "attached" in message):
                        stack.enter_context(self._hangup_noticed(channel))
                elif not self._type():
                    if self._typing is not None:
                        # After what was typed comes an end, up to which it is read.
                        os.close(self._typing.sink)
                    channel.send({"detach": True})
                    return _HUNG_UP if self._hung_up else None

    def _type(self) -> bool:
        """Pass on what was typed; False for the keys to leave, or a terminal that is gone."""
        typing = self._typing
        if typing is not None and not typing.advance():
            if self._at_terminal:
                self._hung_up = True
                return False
            os.close(typing.sink)
            self._typing = None
        return typing is None or not typing.left

    @contextlib.contextmanager
    def _hangup_noticed(self, channel: Channel) -> Iterator[None]:
        """Leave at SIGHUP; the supervisor then closes the channel."""

        def leave(*_: object) -> None:
            self._hung_up = True
            channel.send({"detach": True})

        saved = signal.signal(signal.SIGHUP, leave)
        try:
            yield
        finally:
            signal.signal(signal.SIGHUP, saved)


@contextlib.contextmanager
def raw_terminal(*, enabled: bool) -> Iterator[None]:
    """Pass every key of our terminal through, in this block, where a container takes them."""
    if not enabled or not os.isatty(0):
        yield
        return
    import termios
    import tty

    saved = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


def await_start(channel: Channel) -> None:
    """Agree to the start and wait until the command runs; RlError where it does not."""
    while True:
        message, _ = channel.receive()
        if message is None:
            raise RlError("the container's supervisor ended unexpectedly")
        if "exit_code" in message:
            _outcome(message)
            return
        if "started" in message:
            return
        channel.send({"start": True})


def _outcome(message: dict[str, object]) -> int:
    code = int(str(message["exit_code"]))
    if "error" in message:
        raise RlError(str(message["error"]), code)
    return code


@contextlib.contextmanager
def _signals_forwarded(channel: Channel) -> Iterator[None]:
    """Pass signals on to PID 1, which gets them as Docker's does: only those it handles count."""
    interrupts = 0

    def forward(number: int, _: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        wanted = signal.SIGKILL if interrupts >= _INTERRUPTS_TO_KILL else number
        channel.send({"signal": int(wanted)})

    saved = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _window_followed(channel: Channel) -> Iterator[None]:
    def resize(*_: object) -> None:
        channel.send({"resize": True})

    saved = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, saved)
