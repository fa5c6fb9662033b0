"""Whether systemd ends detached containers when their user logs out, logind.conf(5).

Reads configuration and our own control group; changes nothing. Called by the
command line when a container is to outlive the command.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from rootless.files import read_text

_CONFIGURATION = (
    "/usr/lib/systemd/logind.conf.d/*.conf",
    "/etc/systemd/logind.conf",
    "/run/systemd/logind.conf.d/*.conf",
    "/etc/systemd/logind.conf.d/*.conf",
)
# A file for each user whose systemd --user goes on when nobody of that name is logged in.
_LINGER = Path("/var/lib/systemd/linger")


def warning(supervisor: int) -> str | None:
    """Return what to tell the person who starts a container, None where it outlives the login."""
    cgroup = read_text(f"/proc/{supervisor}/cgroup")
    if in_session(cgroup):
        files = [name for pattern in _CONFIGURATION for name in sorted(glob.glob(pattern))]
        if kills(map(read_text, files)):
            return (
                "systemd ends this container when you log out "
                "(loginctl enable-linger, and systemd-run --user --scope rl …, keep it)"
            )
    elif (uid := user_manager(cgroup)) is not None and not _lingers(uid):
        return (
            "systemd ends this container when you log out for the last time "
            "(loginctl enable-linger keeps it)"
        )
    return None


def user_manager(cgroup: str) -> int | None:
    """Return whose systemd --user a process with this /proc/PID/cgroup belongs to, if to any."""
    found = re.search(r"/user@([0-9]+)\.service(/|$)", cgroup, re.MULTILINE)
    return int(found[1]) if found else None


def _lingers(uid: int) -> bool:
    import pwd

    try:
        return (_LINGER / pwd.getpwuid(uid).pw_name).exists()
    except KeyError:
        return False


def in_session(cgroup: str) -> bool:
    """Tell whether a process with this /proc/PID/cgroup belongs to a login session."""
    return re.search(r"/session-[^/]+\.scope(/|$)", cgroup, re.MULTILINE) is not None


def kills(configuration: Iterable[str]) -> bool:
    """Tell whether the files, the last of which counts, have a session's processes killed."""
    found = re.findall(r"^\s*KillUserProcesses\s*=\s*(\S+)", "\n".join(configuration), re.MULTILINE)
    return bool(found) and found[-1].lower() in ("yes", "true", "on", "1")
