"""The command `fuse-overlay`: fuse-overlayfs's options and mount.fuse3's way of calling.

Mounts, and goes to the background when the mount is ready. Never decides what the file system
means. Called as a program.
"""

import errno
import logging
import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from fuse_overlay import __version__

if TYPE_CHECKING:
    from fuse_overlay.overlay import Overlay
    from fuse_overlay.ownership import Ownership

_HELP = """\
usage: fuse-overlay [-f] [-d] -o OPTION[,OPTION...] MOUNTPOINT

  -o lowerdir=DIR[:DIR...]  read-only directories, topmost first
  -o upperdir=DIR           the directory that changes go to; without it the mount is read-only
  -o workdir=DIR            a directory of our own, on the file system of upperdir
  -o ro                     mount read-only
  -o volatile               do nothing for copied-up files to outlast a power failure
  -o size=BYTES, -o inodes=NUMBER
                            a disk limit for upperdir; K, M, G and T are powers of 1024
  -o squash_to_root, -o squash_to_uid=UID, -o squash_to_gid=GID
                            show everything as belonging to one user
  -o uidmapping=STORED:SHOWN:COUNT[:...], -o gidmapping=...
                            show ids as others
  -o xattr_permissions=1|2  keep owner and mode in an extended attribute of the file
                            (1: security.*, for root; 2: user.containers.override_stat)
  -o writeback=0            let no write wait in the kernel
  -o stats=FILE             at the end, write the number of requests of each kind as JSON
  -o server=pyfuse3         serve through pyfuse3 and trio instead of our own loop
  -f                        stay in the foreground
  -d, --debug, -o debug     show every request (-d and --debug: in the foreground)
  -h, --help                show this help
  -V, --version             show the version

A backslash before a comma, a colon or a backslash makes it part of a directory's name.
"""

_KNOWN = frozenset(
    "lowerdir upperdir workdir ro volatile debug writeback stats server size inodes uidmapping"
    " gidmapping squash_to_root squash_to_uid squash_to_gid xattr_permissions".split()
)

_WITHOUT_MEANING = frozenset(
    # what mount(8) passes on
    "rw dev nodev suid nosuid exec auto noauto async sync atime noatime relatime norelatime"
    " strictatime nostrictatime lazytime nolazytime diratime nodiratime defaults user nouser users"
    " group owner nofail _netdev"
    # what fuse-overlayfs and libfuse have, and is so here always or never needed
    " allow_other allow_root default_permissions fsname subtype auto_unmount userxattr timeout"
    " threaded clone_fd max_threads max_idle_threads fsync fast_ino static_nlink".split()
)


class UsageError(Exception):
    """The command line cannot be understood; one line that says why."""


class Arguments(NamedTuple):
    """What the command line asks for."""

    lowers: tuple[str, ...]
    upper: str | None
    work: str | None
    mountpoint: str
    read_only: bool = False
    volatile: bool = False
    foreground: bool = False
    debug: bool = False
    writeback: bool = True
    pyfuse3: bool = False
    statistics: str | None = None
    size: int | None = None
    inodes: int | None = None
    owners: "Ownership | None" = None
    ignored: tuple[str, ...] = ()


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

    Unknown options after -o are ignored, as fuse-overlayfs does, and returned as such. Of two
    positionals the first is the source that mount(8) names, and is ignored.
    """
    options: dict[str, str] = {}
    ignored: list[str] = []
    flags: set[str] = set()
    positionals: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument.startswith("-o"):
            text = argument[2:] or next(waiting, "")
            for option in split_escaped(text, ","):
                name, _, value = option.partition("=")
                options[name] = value
                if name and name not in _KNOWN | _WITHOUT_MEANING and not name.startswith("x-"):
                    ignored.append(option)
        elif argument in ("-f", "-d", "--debug"):
            flags.add(argument)
        elif argument.startswith("-") and len(argument) > 1:
            raise UsageError(f"unknown option {argument}")
        else:
            positionals.append(argument)
    if len(positionals) not in (1, 2):
        raise UsageError(f"one mountpoint is needed, {len(positionals)} names are given")
    if not options.get("lowerdir"):
        raise UsageError("no lower directories: -o lowerdir=DIR[:DIR...] is needed")
    if bool(options.get("upperdir")) != bool(options.get("workdir")):
        raise UsageError(
            "upperdir= and workdir= belong together: give both, or none for a read-only mount"
        )
    if options.get("server", "pyfuse3") != "pyfuse3":
        raise UsageError(f"there is no server={options['server']}, only server=pyfuse3")
    return Arguments(
        lowers=tuple(unescape(path) for path in split_escaped(options["lowerdir"], ":") if path),
        upper=unescape(options["upperdir"]) if options.get("upperdir") else None,
        work=unescape(options["workdir"]) if options.get("workdir") else None,
        mountpoint=positionals[-1],
        read_only="ro" in options or not options.get("upperdir"),
        volatile="volatile" in options,
        foreground=bool(flags & {"-f", "-d", "--debug"}),
        debug=bool(flags & {"-d", "--debug"}) or "debug" in options,
        writeback=options.get("writeback") != "0",
        pyfuse3=options.get("server") == "pyfuse3",
        statistics=options.get("stats"),
        size=_number(options, "size"),
        inodes=_number(options, "inodes"),
        owners=_owners(options),
        ignored=tuple(ignored),
    )


_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _number(options: dict[str, str], name: str) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    digits = text.upper().rstrip("B").rstrip("I")
    unit = _UNITS.get(digits[-1:], 1)
    digits = digits[:-1] if unit > 1 else digits
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"{name}={text} is no number; say for example {name}=2G")
    return int(digits) * unit


def _owners(options: dict[str, str]) -> "Ownership | None":
    names = "uidmapping gidmapping squash_to_root squash_to_uid squash_to_gid xattr_permissions"
    if not options.keys() & set(names.split()):
        return None
    from fuse_overlay.ownership import ATTRIBUTE, PRIVILEGED_ATTRIBUTE, Ownership, parse_ranges

    attribute = None
    if "xattr_permissions" in options:
        known = {"0": None, "1": PRIVILEGED_ATTRIBUTE, "2": ATTRIBUTE}
        if options["xattr_permissions"] not in known:
            raise UsageError("xattr_permissions= must be 1 or 2")
        attribute = known[options["xattr_permissions"]]
    ranges = {}
    for name in ("uidmapping", "gidmapping"):
        try:
            ranges[name] = parse_ranges(options[name]) if name in options else []
        except ValueError:
            raise UsageError(f"{name}= must be STORED:SHOWN:COUNT[:...]") from None
    root = 0 if "squash_to_root" in options else None
    uid, gid = _number(options, "squash_to_uid"), _number(options, "squash_to_gid")
    return Ownership(
        ranges["uidmapping"],
        ranges["gidmapping"],
        root if uid is None else uid,
        root if gid is None else gid,
        attribute,
    )


def main() -> NoReturn:
    """Run the command line.

    Exits with 0 when the mount is ready (with -f: when it is gone), 1 after an error.
    """
    if {"-h", "--help", "-V", "--version"} & set(sys.argv[1:]):
        wants_version = {"-V", "--version"} & set(sys.argv[1:])
        sys.stdout.write(f"fuse-overlay: version {__version__}\n" if wants_version else _HELP)
        sys.exit(0)
    try:
        arguments = parse(sys.argv[1:])
    except UsageError as error:
        sys.exit(f"fuse-overlay: {error}")
    for option in arguments.ignored:
        sys.stderr.write(f"fuse-overlay: unknown option ignored: {option}\n")
    logging.basicConfig(
        level=logging.DEBUG if arguments.debug else logging.WARNING,
        format="fuse-overlay: %(name)s: %(message)s",
    )
    try:
        _run(arguments)
    except (OSError, RuntimeError) as error:
        sys.exit(f"fuse-overlay: {_explain(error, arguments)}")
    sys.exit(0)


def _explain(error: OSError | RuntimeError, arguments: Arguments) -> str:
    """What failed and why, in one line that names things as the command line does."""
    if not isinstance(error, OSError) or error.errno is None:
        return f"cannot mount at {arguments.mountpoint}: {error}"
    if error.strerror == os.strerror(error.errno):  # else it says itself what it is about
        for option, paths in (
            ("lowerdir", arguments.lowers),
            ("upperdir", (arguments.upper,)),
            ("workdir", (arguments.work,)),
        ):
            if error.filename is not None and error.filename in paths:
                return f"cannot open {option} {error.filename}: {error.strerror}"
    about = "" if error.filename in (None, arguments.mountpoint) else f": {error.filename}"
    return f"cannot mount at {arguments.mountpoint}: {error.strerror}{about}"


def _run(arguments: Arguments) -> None:
    from fuse_overlay import mount
    from fuse_overlay.overlay import Overlay

    if not stat.S_ISDIR(os.stat(arguments.mountpoint).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), arguments.mountpoint)
    mountpoint = os.path.abspath(arguments.mountpoint)
    overlay = Overlay(
        arguments.lowers,
        arguments.upper,
        arguments.work,
        volatile=arguments.volatile,
        size=arguments.size,
        inodes=arguments.inodes,
        owners=arguments.owners,
    )
    unmount = None
    try:
        if _may_mount():
            fd = mount.open_device()
            mount.mount(fd, mountpoint, read_only=arguments.read_only)
            unmount = mount.unmount
        else:
            fd = mount.fusermount(mountpoint, read_only=arguments.read_only)
            unmount = mount.fuserunmount
        serve = _serve_with_pyfuse3 if arguments.pyfuse3 else _serve
        if serve(overlay, fd, arguments):
            unmount = None
    finally:
        if unmount:
            unmount(mountpoint)
        overlay.close()


def _serve(overlay: "Overlay", fd: int, arguments: Arguments) -> bool:
    from fuse_overlay.connection import Connection
    from fuse_overlay.server import serve_until_signalled, write_statistics

    connection = Connection(fd, overlay, writeback=arguments.writeback, debug=arguments.debug)
    connection.handshake()
    # Named before we leave the directory that it may be relative to.
    statistics = arguments.statistics and os.path.abspath(arguments.statistics)
    if not arguments.foreground:
        _go_to_background()
    unmounted = serve_until_signalled(connection)
    if statistics:
        write_statistics(statistics, connection.requests)
    return unmounted


def _serve_with_pyfuse3(overlay: "Overlay", fd: int, arguments: Arguments) -> bool:
    import trio

    from fuse_overlay import pyfuse3_server

    pyfuse3_server.start(overlay, fd, debug=arguments.debug)
    if not arguments.foreground:
        _go_to_background()
    return trio.run(pyfuse3_server.serve_until_signalled)


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
