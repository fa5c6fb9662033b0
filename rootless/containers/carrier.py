"""One side of a copy: a process that sees a tree, and packs or unpacks what it is asked for.

Owns how a path is looked up on either side: in a container by descriptors, as inside its root,
whatever its processes change meanwhile (CVE-2018-15664). What was looked up stays open, so that
what is copied is what was decided on. Never executes or loads anything of the tree
(CVE-2019-14271). Started by `copy`; the processes that see a container are those of `view`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import posixpath
import resource
import signal
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from rootless.channel import Channel
from rootless.errors import RlError
from rootless.kernel import mounts, process, syscalls
from rootless.values import as_dict

_MOST_NAMES: Final = 300
Kind = Literal["directory", "file", "missing"]


class Found(NamedTuple):
    """What is at a path: its ``kind``, and for a file, or for what is missing, its ``name`` in the
    directory that holds it, links followed.
    """

    kind: Kind
    name: str


# The side that asks.


class Carrier:
    """A process that sees a tree, as the one who asks knows it."""

    def __init__(self, channel: Channel, tree: str) -> None:
        self._channel = channel
        self._tree = tree

    def look_at_source(self, path: str, *, follow: bool) -> Found:
        """Return what is to be copied; a link at the end of ``path`` is what it is, or followed."""
        return Found(**self._ask({"source": path, "follow": follow}))

    def look_at_target(self, path: str) -> Found:
        """Return what is where the copy is to go, links followed."""
        return Found(**self._ask({"target": path}))

    def names(self, path: str) -> list[str]:
        """Return what a directory holds, directories with a ``/``; of a very large one not all."""
        found: list[str] = self._ask({"list": path})["names"]
        return found

    def pack(self, name: str, sink: int, *, exact: bool) -> None:
        """Begin to write the source to ``sink``, as ``name``, see `pack`."""
        self._channel.send({"pack": name, "exact": exact}, sink)

    def unpack(self, source: int, *, keep: bool, foreign: bool = False) -> None:
        """Begin to read an archive from ``source`` into the target, or where it is.

        ``keep`` the owners. A ``foreign`` archive was not made by `pack`.
        """
        self._channel.send({"unpack": True, "keep": keep, "foreign": foreign}, source)

    def user_namespace(self) -> int:
        """Return a descriptor of the namespace that the process is root of."""
        self._channel.send({"namespace": True})
        answer, fds = self._channel.receive()
        if not fds:
            raise RlError(f"{self._tree}: {(answer or {}).get('error', 'it ended unexpectedly')}")
        return fds[0]

    def result(self) -> dict[str, Any]:
        """Wait until what was begun is done; RlError says what failed."""
        answer, _ = self._channel.receive()
        if answer is None:
            raise RlError(f"the process that copies {self._tree} ended unexpectedly")
        if "error" in answer:
            raise RlError(f"{self._tree}: {answer['error']}")
        return answer

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._channel.send(question)
        return self.result()


@contextlib.contextmanager
def on_host(userns: int | None = None) -> Iterator[Carrier]:
    """Give a process that sees the host as we do; or as root of a user namespace."""
    channel, theirs = Channel.pair()

    def main() -> int:
        process.die_with_parent()
        if userns is not None:
            with failures_sent(theirs):
                syscalls.setns(userns, syscalls.CLONE_NEWUSER)
                syscalls.become_root()
                process.die_with_parent()
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        serve(root, theirs, host=True)
        return 0

    keep = [theirs.fileno()] + ([userns] if userns is not None else [])
    child = process.fork(main, keep=keep)
    theirs.close()
    try:
        yield Carrier(channel, "the host")
    finally:
        channel.close()
        child.kill()
        child.wait()


# The side that answers.


def serve(root: int, channel: Channel, *, host: bool = False) -> None:
    """Do what is asked for until the other side is gone."""
    # ^C ends who asks, and that ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A directory costs a descriptor for each level.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tree = _Tree(root, host)
    while True:
        question, fds = channel.receive()
        if question is None:
            return
        with failures_sent(channel):
            if "namespace" in question:
                _send_namespace(channel)
            else:
                channel.send(_answer(tree, question, fds))


@contextlib.contextmanager
def failures_sent(channel: Channel) -> Iterator[None]:
    """Send what fails in this block as an answer."""
    try:
        yield
    except RlError as error:
        channel.send({"error": str(error)})
    except OSError as error:
        where = f": {os.fsdecode(error.filename)}" if error.filename else ""
        channel.send({"error": f"{error.strerror or error}{where}"})
    except Exception as error:
        channel.send({"error": f"internal error: {type(error).__name__}: {error}"})


def _send_namespace(channel: Channel) -> None:
    namespace = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    channel.send({"namespace": True}, namespace)
    os.close(namespace)


def _answer(tree: _Tree, question: Mapping[str, Any], fds: list[int]) -> dict[str, Any]:
    if "source" in question:
        return as_dict(tree.open_source(question["source"], follow=question["follow"]))
    if "list" in question:
        return {"names": tree.names(question["list"])}
    if "target" in question:
        return as_dict(tree.open_target(question["target"]))
    if "pack" in question:
        from rootless.archive.pack import pack

        try:
            with open(fds[0], "wb", buffering=1 << 18) as sink:
                size = pack(tree.source, question["pack"], sink, exact=question["exact"])
        except BrokenPipeError:
            # Whoever reads it knows why.
            return {"size": 0, "broken": True}
        return {"size": size}
    from rootless.archive.unpack import Rules, unpack

    rules = Rules(
        keep=question["keep"], as_root=question["keep"] or not tree.host, setid=not tree.host
    )
    with open(fds[0], "rb", buffering=1 << 18) as source:
        devices = unpack(source, tree.place(foreign=question["foreign"]), rules)
    return {"devices": devices[:1], "left_out": len(devices)}


class _Tree:
    """The tree below ``root``, and what was looked up in it last."""

    def __init__(self, root: int, host: bool) -> None:
        self.host = host
        self.source = -1
        self._root = root
        self._target = -1
        self._target_path = ""

    def open_source(self, path: str, *, follow: bool) -> Found:
        self.source = self._open(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        directory = stat.S_ISDIR(os.fstat(self.source).st_mode)
        return Found("directory" if directory else "file", "")

    def names(self, path: str) -> list[str]:
        directory = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(directory) as entries:
                # No more than a message takes.
                some = itertools.islice(entries, _MOST_NAMES)
                return sorted(
                    f"{one.name}{'/' * one.is_dir(follow_symlinks=False)}" for one in some
                )
        finally:
            os.close(directory)

    def open_target(self, path: str) -> Found:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._target = self._open(path, os.O_PATH | os.O_DIRECTORY)
            self._target_path = path
            return Found("directory", "")
        return self._open_parent(path)

    def place(self, *, foreign: bool) -> Any:
        from rootless.archive.unpack import Place

        if foreign and not self.host:
            return Place(self._target, self._root, self._target_path)
        return Place(self._target)

    def _open_parent(self, path: str) -> Found:
        """Open the directory that holds a file, or would, and follow links that are the file."""
        for _ in range(mounts.MOST_LINKS):
            parent, _, name = path.rstrip("/").rpartition("/")
            self._target = self._open(f"{parent}/", os.O_PATH | os.O_DIRECTORY)
            if name in ("", ".", ".."):
                break
            try:
                link = os.readlink(name, dir_fd=self._target)
            except FileNotFoundError:
                return Found("missing", name)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                if path.endswith("/"):
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", path) from None
                return Found("file", name)
            path = posixpath.join(parent, link)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _open(self, path: str, flags: int) -> int:
        if self.host:
            return os.open(path, flags | os.O_CLOEXEC)
        return mounts.open_in_root(self._root, path or "/", flags)
