"""Copying files into containers, out of them and between them, by docker cp's rules.

Owns the rules (pure) and the order of the steps; how a tree is reached and read is `view`'s,
`carrier`'s, `pack`'s and `unpack`'s. Called by `rl cp` and `rl export`.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from pathlib import Path
from typing import Any, Final, NamedTuple

from rootless.containers import view
from rootless.containers.announce import announce
from rootless.containers.carrier import Carrier, Found, on_host
from rootless.containers.store import Container, ContainerStore
from rootless.errors import RlError
from rootless.images.store import ImageStore

STREAM: Final = "-"


class End(NamedTuple):
    """One end of a copy: a path in a container, or on the host, or "-"."""

    container: str | None
    path: str

    @classmethod
    def parse(cls, text: str) -> End:
        """Read ``CONTAINER:PATH`` or a path of the host, which begins with / or . if it has a :."""
        container, colon, path = text.partition(":")
        if text == STREAM:
            return cls(None, text)
        if not colon or text.startswith(("/", ".")):
            return cls(None, os.path.join(os.getcwd(), text))
        return cls(container, posixpath.join("/", path))

    @property
    def stream(self) -> bool:
        """Whether it is standard input or output."""
        return self.container is None and self.path == STREAM

    def __str__(self) -> str:
        return self.path if self.container is None else f"{self.container}:{self.path}"


class Options(NamedTuple):
    """``archive``: keep owners; ``follow``: copy what a link at the end of the source leads to."""

    archive: bool = False
    follow: bool = False


def placed_name(source: str, found: Found, target: str, there: Found) -> str:
    """Return the name of the source in the directory that was found for the target.

    "." is that directory itself: the source's content goes into it. RlError where docker cp's
    rules allow no copy.
    """
    if there.kind == "directory":
        if found.kind == "directory" and source.endswith("/."):
            return "."
        return posixpath.basename(posixpath.normpath(source)) or "."
    if found.kind == "directory" and there.kind == "file":
        raise RlError(f"cannot copy a directory to a file: {target}")
    if found.kind == "file" and there.kind == "missing" and target.endswith("/"):
        raise RlError(f"the destination directory {target} must exist")
    return there.name


class Done(NamedTuple):
    """How many bytes were copied, and how many devices were not; ``device`` is the first."""

    size: int
    left_out: int = 0
    device: str = ""


def copy(root: Path, source: End, target: End, options: Options) -> Done:
    """Copy ``source`` to ``target``; RlError says what failed."""
    with contextlib.ExitStack() as cleanup:
        reading, writing = _open(root, source, target, options, cleanup)
        if reading is None:
            assert writing is not None
            there = writing.look_at_target(target.path)
            if there.kind == "missing":
                raise RlError(f"the destination directory {target} must exist")
            if there.kind != "directory":
                raise RlError(f"the destination {target} must be a directory")
            writing.unpack(0, keep=options.archive, foreign=True)
            return _done({"size": 0}, writing.result())
        found = reading.look_at_source(source.path, follow=options.follow)
        if writing is None:
            name = placed_name(source.path, found, "", Found("directory", ""))
            reading.pack(name, 1, exact=False)
            return _done(_whole(reading.result()), {})
        there = writing.look_at_target(target.path)
        name = placed_name(source.path, found, target.path, there)
        reader, writer = os.pipe()
        reading.pack(name, writer, exact=True)
        writing.unpack(reader, keep=options.archive)
        os.close(reader)
        os.close(writer)
        failure: RlError | None = None
        answers = []
        for carrier in (reading, writing):
            try:
                answers.append(carrier.result())
            except RlError as error:
                # Of two the first is the cause.
                failure = failure or error
        if failure is not None:
            raise failure
        return _done(*answers)


def export(root: Path, container: Container, sink: int) -> None:
    """Write the container's tree to ``sink``, without what is mounted in it."""
    with view.opened(container, _layers(root, container), bare=True) as carriers:
        carriers[0].look_at_source("/", follow=False)
        carriers[0].pack("", sink, exact=False)
        _whole(carriers[0].result())
    announce(container, "export")


def names(root: Path, container: Container, directory: str) -> list[str]:
    """Return what a directory of a container holds, looked up inside its root."""
    with view.opened(container, _layers(root, container)) as carriers:
        return carriers[0].names(directory)


def _open(
    root: Path, source: End, target: End, options: Options, cleanup: contextlib.ExitStack
) -> tuple[Carrier | None, Carrier | None]:
    """Return who reads and who writes, None for a stream of ours; containers come first."""
    store = ContainerStore(root)
    containers = [store.get(end.container) for end in (source, target) if end.container]
    if not containers:
        raise RlError("one of both must be in a container: CONTAINER:PATH")
    # One and the same is seen once, by two processes.
    distinct = {container.id: container for container in containers}.values()
    # As Docker calls them.
    for end, action in ((source, "archive-path"), (target, "extract-to-dir")):
        if end.container:
            announce(store.get(end.container), action)
    seen: list[Carrier] = []
    for container in distinct:
        layers, sides = _layers(root, container), len(containers) // len(distinct)
        seen += cleanup.enter_context(view.opened(container, layers, sides=sides))
    # On the host: with the owners that files have in the container's user namespace.
    namespace = seen[0].user_namespace() if options.archive else None

    def carrier(end: End) -> Carrier | None:
        if end.stream:
            return None
        return seen.pop(0) if end.container else cleanup.enter_context(on_host(namespace))

    return carrier(source), carrier(target)


def _layers(root: Path, container: Container) -> list[Path]:
    images = ImageStore(root)
    return [images.layer_path(layer) for layer in container.extra.layers]


def _whole(answer: dict[str, Any]) -> dict[str, Any]:
    """Raise BrokenPipeError where the reader of an archive was gone before its end."""
    if "broken" in answer:
        raise BrokenPipeError
    return answer


def _done(packed: dict[str, Any], unpacked: dict[str, Any]) -> Done:
    devices = unpacked.get("devices", [])
    return Done(packed["size"], unpacked.get("left_out", 0), devices[0] if devices else "")
