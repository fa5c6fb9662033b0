"""Which namespaces a container has for itself, and what of the host it shares, as a person asks.

Owns the syntax of these options. Light, and pure but for a look at our own limits: what they come
to is idmaps's and spec's. Made by the command line, parts of the Request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from rootless.containers.annotation import JOIN, named_in
from rootless.errors import RlError

# Podman's word for the groups of the user outside.
KEEP_GROUPS: Final = "keep-groups"
_MODES: Final = {
    "pid": ("private", "host"),
    "ipc": ("private", "host", "none", "shareable"),
    "uts": ("private", "host"),
}
# Docker's names, of getrlimit(2).
_ULIMITS: Final = frozenset(
    "core cpu data fsize memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
    .split()
)  # fmt: skip
# What belongs to an IPC namespace, besides fs.mqueue.
_IPC_SYSCTLS: Final = frozenset(
    f"kernel.{name}"
    for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)


class Ulimit(NamedTuple):
    """A resource limit by Docker's name; -1 is no limit."""

    name: str
    soft: int
    hard: int


class Device(NamedTuple):
    """A device node of the host, or a directory of them, and where it goes in the container."""

    source: str
    target: str
    permissions: str = "rwm"


class Namespaces(NamedTuple):
    """The modes as they were given; "" is the default."""

    userns: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    sysctls: Mapping[str, str] = {}
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int = 0

    @property
    def shared(self) -> frozenset[str]:
        """The types of the namespaces that are the host's."""
        modes = {"pid": self.pid, "ipc": self.ipc, "uts": self.uts}
        return frozenset(kind for kind, mode in modes.items() if mode == "host")


def check_mode(kind: str, mode: str) -> str:
    """Return a mode of --pid, --ipc or --uts; RlError if it is none."""
    if mode and mode not in _MODES[kind] and not named_in(mode):
        modes = ", ".join((*_MODES[kind], f"{JOIN}NAME"))
        raise RlError(f"invalid --{kind} {mode!r}: there are {modes}")
    return mode


def check_hostname(hostname: str | None, uts: str) -> None:
    """Raise RlError for a name of one's own in a UTS namespace that is not."""
    if hostname is not None and uts not in ("", "private"):
        # Docker's own words.
        raise RlError(f"conflicting options: hostname and the UTS mode (--uts {uts})")


def check_network(program: str, shared: frozenset[str], sources: Iterable[str]) -> None:
    """Raise RlError for a program that connects a container which could take it over.

    slirp4netns can be traced by whoever is root of its user namespace, the container's, and sees
    it, be it by a bind of one of the ``sources``: then the host's loopback and files are in reach.
    pasta keeps itself from being traced.
    """
    if program == "slirp4netns" and (
        "pid" in shared or any(f"{source}/".startswith("/proc/") for source in sources)
    ):
        raise RlError(
            "--network slirp4netns cannot be used with --pid host or a bind of /proc: the "
            "container could take slirp4netns over (use pasta, which is in the package passt of "
            "Debian, Ubuntu and Fedora, or --network none)"
        )


def parse_devices(texts: Iterable[str]) -> tuple[Device, ...]:
    """Read HOST[:TARGET[:PERMISSIONS]], as Docker does."""
    found = []
    for text in texts:
        source, *rest = text.split(":")
        # Docker's short form: HOST:rwm.
        permissions = rest.pop() if rest and rest[-1] and {*"rwm"}.issuperset(rest[-1]) else "rwm"
        target = rest.pop(0) if rest else source
        if rest or not source.startswith("/") or not target.startswith("/"):
            raise RlError(f"invalid device {text!r}: expected HOST[:TARGET[:rwm]], both absolute")
        found.append(Device(source, target, permissions))
    return tuple(found)


def parse_groups(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the groups of --group-add, several in one as in Podman; keep-groups stands alone."""
    groups = tuple(group for text in texts for group in text.split(","))
    if KEEP_GROUPS in groups and len(groups) > 1:
        raise RlError(f"--group-add {KEEP_GROUPS} cannot be used with other groups")
    if not all(groups):
        raise RlError("invalid --group-add: a group has a name or a number")
    return groups


def parse_umask(text: str | None) -> int | None:
    """Read an octal number."""
    if text is None:
        return None
    if not text or len(text) > 4 or not {*"01234567"}.issuperset(text) or int(text, 8) > 0o777:
        raise RlError(f"invalid umask {text!r}: expected an octal number such as 0022")
    return int(text, 8)


def parse_sysctls(
    texts: Iterable[str], shared: frozenset[str], joined: Collection[str] = ()
) -> dict[str, str]:
    """Read NAME=VALUE; RlError for one that is not of a namespace that the container has."""
    found = {}
    for text in texts:
        name, given, value = text.partition("=")
        name = name.strip().replace("/", ".")
        if not name or not given:
            raise RlError(f"invalid sysctl {text!r}: expected NAME=VALUE")
        if "\0" in value or ".." in name:
            raise RlError(f"invalid sysctl {text!r}")
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            owner = "ipc"
        elif name.startswith("net."):
            owner = "network"
        else:
            raise RlError(f"sysctl {name} is not in a separate kernel namespace, it is the host's")
        if owner in shared or owner in joined:
            whose = "the host's" if owner in shared else "another container's"
            what = {"ipc": "IPC"}.get(owner, owner)
            raise RlError(f"sysctl {name} cannot be set: the container has {whose} {what}")
        found[name] = value
    return found


def parse_ulimits(texts: Iterable[str]) -> tuple[Ulimit, ...]:
    """Read NAME=SOFT[:HARD], the last of a name counting; RlError above our own hard limit."""
    found = {}
    for text in texts:
        name, given, values = text.partition("=")
        name = name.strip().lower().removeprefix("rlimit_")
        soft_text, two, hard_text = values.partition(":")
        if not given or name not in _ULIMITS:
            raise RlError(f"invalid ulimit {text!r}: expected NAME=SOFT[:HARD], NAME one of "
                          f"{', '.join(sorted(_ULIMITS))}")  # fmt: skip
        soft = _limit(soft_text, text)
        hard = _limit(hard_text, text) if two else soft
        if hard != -1 and (soft == -1 or soft > hard):
            raise RlError(f"invalid ulimit {text!r}: the soft limit is above the hard one")
        _check_possible(name, hard)
        found[name] = Ulimit(name, soft, hard)
    return tuple(found.values())


def _limit(value: str, text: str) -> int:
    number = value.strip()
    if number in ("-1", "unlimited"):
        return -1
    if not (number.isascii() and number.isdecimal()) or int(number) >= 2**63:
        raise RlError(f"invalid ulimit {text!r}: {value!r} is no number")
    return int(number)


def _check_possible(name: str, hard: int) -> None:
    import resource

    _, ours = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    if ours != resource.RLIM_INFINITY and (hard == -1 or hard > ours):
        raise RlError(
            f"ulimit {name}={hard} is above your own hard limit of {ours} (an administrator can "
            "raise that, see limits.conf(5))"
        )
