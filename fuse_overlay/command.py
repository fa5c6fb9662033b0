"""The command `fuse-overlay`: fuse-overlayfs's options and mount.fuse3's way of calling.

Mounts, and goes to the background when the mount is ready. Never decides what the file system
means. Called as a program.
"""

import logging
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

_USAGE = (
    "usage: fuse-overlay [-f] [-d] -o lowerdir=DIR[:DIR...][,upperdir=DIR,workdir=DIR][,OPTION...]"
    " MOUNTPOINT"
)


class UsageError(Exception):
    """The command line cannot be understood; one line that says why."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line asks for."""

    lowers: tuple[str, ...]
    upper: str | None
    work: str | None
    mountpoint: str
    read_only: bool = False
    volatile: bool = False
    foreground: bool = False
    debug: bool = False


def split_escaped(text: str, separator: str) -> list[str]:
    """Split at `separator` where no backslash stands before it.

    A backslash before the separator is taken away, all others stay for `unescape`.
    """
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            parts[-1] += following if following == separator else character + following
        elif character == separator:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def unescape(path: str) -> str:
    """Take the backslash from an escaped character of a path, as the kernel's overlayfs does."""
    characters = iter(path)
    return "".join(
        next(characters, "\\") if character == "\\" else character for character in characters
    )


def parse(arguments: list[str]) -> Arguments:
    """Understand a command line. Raises UsageError.

    Unknown options after -o are ignored, as fuse-overlayfs does. Of two positionals the first is
    the source that mount(8) names, and is ignored.
    """
    options: dict[str, str] = {}
    flags: set[str] = set()
    positionals: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument.startswith("-o"):
            text = argument[2:] or next(waiting, "")
            for option in split_escaped(text, ","):
                name, _, value = option.partition("=")
                options[name] = value
        elif argument in ("-f", "-d", "--debug", "-h", "--help"):
            flags.add(argument)
        elif argument.startswith("-") and len(argument) > 1:
            raise UsageError(f"unknown option {argument}")
        else:
            positionals.append(argument)
    if flags & {"-h", "--help"}:
        raise UsageError(_USAGE)
    if len(positionals) not in (1, 2):
        raise UsageError(f"one mountpoint is needed, {len(positionals)} names are given")
    if not options.get("lowerdir"):
        raise UsageError("no lower directories: -o lowerdir=DIR[:DIR...] is needed")
    if bool(options.get("upperdir")) != bool(options.get("workdir")):
        raise UsageError(
            "upperdir= and workdir= belong together: give both, or none for a read-only mount"
        )
    return Arguments(
        lowers=tuple(unescape(path) for path in split_escaped(options["lowerdir"], ":") if path),
        upper=unescape(options["upperdir"]) if options.get("upperdir") else None,
        work=unescape(options["workdir"]) if options.get("workdir") else None,
        mountpoint=positionals[-1],
        read_only="ro" in options or not options.get("upperdir"),
        volatile="volatile" in options,
        foreground=bool(flags & {"-f", "-d", "--debug"}),
        debug=bool(flags & {"-d", "--debug"}) or "debug" in options,
    )


def main() -> NoReturn:
    """Run the command line.

    Exits with 0 when the mount is ready (with -f: when it is gone), 1 after an error.
    """
    try:
        arguments = parse(sys.argv[1:])
    except UsageError as error:
        if str(error) == _USAGE:
            sys.stdout.write(f"{_USAGE}\n")
            sys.exit(0)
        sys.exit(f"fuse-overlay: {error}")
    logging.basicConfig(
        level=logging.DEBUG if arguments.debug else logging.WARNING,
        format="fuse-overlay: %(name)s: %(message)s",
    )
    try:
        _run(arguments)
    except (OSError, RuntimeError) as error:
        sys.exit(f"fuse-overlay: cannot mount at {arguments.mountpoint}: {error}")
    sys.exit(0)


def _run(arguments: Arguments) -> None:
    import trio

    from fuse_overlay import mount, server
    from fuse_overlay.overlay import Overlay

    mountpoint = os.path.abspath(arguments.mountpoint)
    overlay = Overlay(
        arguments.lowers, arguments.upper, arguments.work, volatile=arguments.volatile
    )
    by_ourselves = _may_mount()
    options = {"debug"} if arguments.debug else set()
    to_unmount = False
    try:
        if by_ourselves:
            fd = mount.open_device()
            mount.mount(fd, mountpoint, read_only=arguments.read_only)
            to_unmount = True
            server.start(overlay, f"/dev/fd/{fd}", options)
        else:
            options |= {"default_permissions", "fsname=fuse-overlay", "subtype=fuse-overlay"}
            options |= {"ro"} if arguments.read_only else set()
            server.start(overlay, mountpoint, options)
        if not arguments.foreground:
            _go_to_background()
        if trio.run(server.serve_until_signalled):
            to_unmount = False
    finally:
        if to_unmount:
            mount.unmount(mountpoint)
        overlay.close()


def _may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN (mount(2) then says whether here)."""
    cap_sys_admin = 21
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> cap_sys_admin & 1)
    return False


def _go_to_background() -> None:
    """Let the parent exit and go on in a child that holds nothing open that a caller waits for."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
