"""What systemd has to do with a container's life: it starts some at boot, and ends some."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.machine import IMAGE, rl, wait_until

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture
def unit() -> Iterator[str]:
    """Install the unit that the README recommends; return its name."""
    (text,) = re.findall(r"```ini\n(.*?)```", README.read_text(), re.DOTALL)
    installed = shutil.which("rl")
    assert installed is not None
    directory = Path.home() / ".config/systemd/user"
    directory.mkdir(parents=True)
    (directory / "rl.service").write_text(text.replace("%h/.local/bin/rl", installed))
    subprocess.run(["systemctl", "--user", "daemon-reload"], check=True)
    yield "rl.service"
    subprocess.run(["systemctl", "--user", "stop", "rl"], check=True)
    for name in rl("ps", "-aq").stdout.split():
        rl("rm", "-f", name)


def systemctl(*arguments: str) -> str:
    done = subprocess.run(
        ["systemctl", "--user", *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


def states() -> dict[str, str]:
    shown = rl("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout
    return dict(line.split() for line in shown.splitlines())


def test_unit_of_the_readme_starts_at_boot_what_is_to_run_then(unit: str) -> None:
    script = ("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done")
    for name, policy in (("on", "always"), ("kept", "unless-stopped"), ("off", "no")):
        rl("create", "--name", name, "--restart", policy, IMAGE, *script)
    systemctl("start", unit)
    assert states() == {"on": "running", "kept": "running", "off": "created"}
    # They belong to the unit, and end with it: the machine goes down.
    systemctl("stop", unit)
    wait_until(lambda: states() == {"on": "exited", "kept": "exited", "off": "created"})
    systemctl("start", unit)
    assert states() == {"on": "running", "kept": "running", "off": "created"}


def test_container_that_ends_with_the_login_is_warned_of() -> None:
    # Below systemd --user, which ends with the last login of a user who does not linger.
    run = ("rl", "run", "-d", "--name", "brief", IMAGE, "sleep", "1000")
    done = subprocess.run(
        ["systemd-run", "--user", "--scope", "-q", *run], check=True, capture_output=True, text=True
    )
    assert "loginctl enable-linger" in done.stderr
    rl("rm", "-f", "brief")
