"""Who is not logged in comes by su, ssh, cron, or as a job: each gets a cgroup as far as it can."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest.machine import IMAGE, sudo, wait_until

Done = subprocess.CompletedProcess[str]

RL = shutil.which("rl")
NAME = "visitor"
UID = pwd.getpwnam(NAME).pw_uid if "RL_GUEST_PREFIX" in os.environ else 0
MANAGER = f"/user.slice/user-{UID}.slice/user@{UID}.service"

INFO = f"{RL} info -f '{{{{.CgroupDriver}}}} {{{{.CgroupParent}}}}'"
LIMITED = f"{RL} run --rm -m 64m {IMAGE} cat /sys/fs/cgroup/memory.max"
SCRIPT = f"{INFO}; {LIMITED}"
PLAIN = ("setpriv", f"--reuid={NAME}", f"--regid={NAME}", "--init-groups", "env", "-i")
BARE = (*PLAIN, f"HOME=/home/{NAME}", "PATH=/usr/bin:/bin:/usr/sbin", "sh", "-c")


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    """Give that user the image."""
    prefix = Path(os.environ["RL_GUEST_PREFIX"])
    script = f"{prefix}/venv/bin/python {prefix}/src/scripts/embedded-image {IMAGE}:latest"
    sudo(*BARE, script)


@pytest.fixture(scope="module", params=[False, True], ids=["briefly", "lingering"])
def lingers(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Tell whether that user's systemd is there without a login."""
    bus = Path(f"/run/user/{UID}/bus")
    if request.param:
        sudo("loginctl", "enable-linger", NAME)
        wait_until(lambda: sudo("test", "-S", str(bus), check=False).returncode == 0)
    yield request.param
    if request.param:
        sudo("loginctl", "disable-linger", NAME)


def by_su() -> Done:
    # root has no session of its own at boot, in a job, or behind a login by ssh as root.
    job = ("systemd-run", "--quiet", "--pipe", "--wait", "su", "-", NAME, "-c", SCRIPT)
    return sudo(*job, check=False)


def by_su_in_the_session_of_another() -> Done:
    return sudo("su", "-", NAME, "-c", SCRIPT, check=False)


def by_ssh() -> Done:
    key = Path.home() / ".ssh/id_ed25519"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        home = f"/home/{NAME}/.ssh"
        sudo("install", "-d", "-o", NAME, "-m", "700", home)
        sudo("install", "-o", NAME, "-m", "600", f"{key}.pub", f"{home}/authorized_keys")
        sudo("systemctl", "start", "ssh")
    options = ("-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR")
    return subprocess.run(
        ["ssh", *options, f"{NAME}@localhost", SCRIPT], check=False, capture_output=True, text=True
    )


def by_cron() -> Done:
    out = Path("/tmp/cron")
    sudo("sh", "-c", "rm -f /run/crond.reboot /tmp/cron*; systemctl stop cron")
    job = (
        f"@reboot sh -c '{SCRIPT.replace(chr(39), chr(34))}' >{out}.out 2>{out}.err; echo $? >{out}"
    )
    sudo("sh", "-c", f"echo {quoted(job)} | crontab -u {NAME} -")
    sudo("systemctl", "start", "cron")
    wait_until(lambda: out.exists() and out.read_text().endswith("\n"))
    texts = (Path(f"{out}.{kind}").read_text() for kind in ("out", "err"))
    return subprocess.CompletedProcess([], int(out.read_text()), *texts)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def by_a_job_without_a_session() -> Done:
    return sudo(*BARE, SCRIPT, check=False)


@pytest.mark.parametrize(
    ("way", "logs_in"),
    [
        (by_su, True),
        (by_su_in_the_session_of_another, False),
        (by_ssh, True),
        (by_cron, False),
        (by_a_job_without_a_session, False),
    ],
)
def test_a_limit_holds_with_a_login_or_lingering_and_is_refused_without(
    lingers: bool, way: Callable[[], Done], logs_in: bool
) -> None:
    # The systemd of a login before this one is on its way out for a moment.
    if not lingers:
        wait_until(lambda: not Path(f"/run/user/{UID}").exists())
    done = way()
    if lingers or logs_in:
        assert done.stdout == f"systemd {MANAGER}\n{64 << 20}\n", done.stderr
        return
    assert done.stdout == "none \n"
    assert done.returncode == 125
    assert "limits need the cgroup controllers memory, which are not delegated" in done.stderr
    assert "ask the administrator for: loginctl enable-linger" in done.stderr


def test_a_cgroup_that_root_gives_away_by_chown_alone_is_enough() -> None:
    hand = "/sys/fs/cgroup/hand"
    give = f"""
        mkdir {hand}
        chown {NAME} {hand} {hand}/cgroup.procs {hand}/cgroup.subtree_control
        echo $$ >{hand}/cgroup.procs
        exec "$@"
    """
    try:
        done = sudo("sh", "-ec", give, "sh", *BARE, f"{SCRIPT}; find {hand} -type d; {INFO}")
        others = f"{hand}/rl-others"
        assert done.stdout == f"cgroupfs /hand\n{64 << 20}\n{hand}\n{others}\ncgroupfs /hand\n"
    finally:
        sudo("find", hand, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";")
