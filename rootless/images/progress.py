"""What a person sees of a pull, on stderr: bars on a terminal, docker's lines elsewhere.

Owns the wording. Never decides anything and never starts a thread. Called by
the pull with each step; `Progress` itself is what --quiet shows: nothing.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

from rootless.images.manifest import Descriptor
from rootless.images.reference import DEFAULT_REGISTRY, Reference

if TYPE_CHECKING:
    from rich.progress import TaskID

# Seconds between two drawings of the bars.
REDRAW = 0.1


class Progress:
    """The steps of a pull, each a method that here says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""

    def started(self, reference: Reference) -> None:
        """Say that the registry is about to be asked."""

    def message(self, line: str) -> None:
        """Say something that a person who waits would like to know."""

    def waiting(self, layer: Descriptor) -> None:
        """Say that a layer has to be fetched, or only unpacked."""

    def exists(self, layer: Descriptor) -> None:
        """Say that a layer is in the store already."""

    def advanced(self, layer: Descriptor, count: int) -> None:
        """Say that ``count`` more bytes of a layer came."""

    def downloaded(self, layer: Descriptor) -> None:
        """Say that all bytes of a layer came; some may still have to be unpacked."""

    def completed(self, layer: Descriptor) -> None:
        """Say that a layer is in the store now."""

    def finished(self, reference: Reference, digest: str, new: bool) -> None:
        """Say that the image is there; ``digest`` is what the registry has under its name."""


class Lines(Progress):
    """One line a step, as `docker pull` writes them where there is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def started(self, reference: Reference) -> None:
        """``latest: Pulling from library/alpine``."""
        hub = reference.registry == DEFAULT_REGISTRY
        place = reference.repository if hub else reference.name
        self.message(f"{reference.tag or reference.digest}: Pulling from {place}")

    def message(self, line: str) -> None:
        """Write ``line``."""
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def waiting(self, layer: Descriptor) -> None:
        """``4abcf2066143: Pulling fs layer``."""
        self.message(f"{short(layer)}: Pulling fs layer")

    def exists(self, layer: Descriptor) -> None:
        """``4abcf2066143: Already exists``."""
        self.message(f"{short(layer)}: Already exists")

    def downloaded(self, layer: Descriptor) -> None:
        """``4abcf2066143: Download complete``."""
        self.message(f"{short(layer)}: Download complete")

    def completed(self, layer: Descriptor) -> None:
        """``4abcf2066143: Pull complete``."""
        self.message(f"{short(layer)}: Pull complete")

    def finished(self, reference: Reference, digest: str, new: bool) -> None:
        """``Digest: sha256:…`` and ``Status: Downloaded newer image for alpine:latest``."""
        self.message(f"Digest: {digest}")
        status = "Downloaded newer image" if new else "Image is up to date"
        self.message(f"Status: {status} for {reference.familiar}")


class Bars(Lines):
    """A bar a layer, and lines for the rest."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich import console, progress

        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TextColumn("{task.fields[state]}"),
            console=console.Console(file=stream),
            # Otherwise a thread of rich's draws.
            auto_refresh=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0

    def __exit__(self, *_: object) -> None:
        """Draw the last state and give the cursor back."""
        self._bars.stop()

    def message(self, line: str) -> None:
        """Write ``line``, above the bars if there are any."""
        if self._tasks:
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            super().message(line)

    def waiting(self, layer: Descriptor) -> None:
        """Add a bar."""
        self._tasks[layer.digest] = self._bars.add_task(
            short(layer), total=layer.size, state="waiting"
        )
        self._bars.start()
        self._bars.refresh()

    def exists(self, layer: Descriptor) -> None:
        """Add a full bar."""
        self.waiting(layer)
        self._show(layer, "already exists", layer.size)

    def advanced(self, layer: Descriptor, count: int) -> None:
        """Move the bar on, a few times a second."""
        self._bars.update(self._tasks[layer.digest], advance=count, state="")
        now = time.monotonic()
        if now - self._drawn > REDRAW:
            self._drawn = now
            self._bars.refresh()

    def downloaded(self, layer: Descriptor) -> None:
        """Fill the bar."""
        self._show(layer, "unpacking", layer.size)

    def completed(self, layer: Descriptor) -> None:
        """Mark the bar as done."""
        self._show(layer, "done", layer.size)

    def finished(self, reference: Reference, digest: str, new: bool) -> None:
        """Let the bars stand and write the last lines below them."""
        self._bars.stop()
        self._tasks.clear()
        super().finished(reference, digest, new)

    def _show(self, layer: Descriptor, state: str, completed: int) -> None:
        self._bars.update(self._tasks[layer.digest], completed=completed, state=state)
        self._bars.refresh()


def short(layer: Descriptor) -> str:
    """Return the twelve digits that Docker shows of a layer."""
    return layer.digest.removeprefix("sha256:")[:12]


def on_stderr(quiet: bool) -> Progress:
    """Return the progress that fits stderr, or one that says nothing."""
    if quiet:
        return Progress()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Bars(sys.stderr)
    return Lines(sys.stderr)
