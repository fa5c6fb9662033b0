"""The guest as a whole: scripts/guest, and the tests that it runs inside."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def guest(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECKOUT / "scripts/guest", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_the_guest_gives_back_output_and_status_of_a_user_who_is_logged_in() -> None:
    script = (
        'echo "$USER $0 $1"; systemctl --user is-active dbus.socket; echo "gone wrong" >&2; exit 7'
    )
    done = guest("sh", "-c", script, "one  argument", "$another")
    assert done.stdout == "guest one  argument $another\nactive\n"
    # The first time it also says that the guest is being made.
    assert done.stderr.endswith("gone wrong\n")
    assert done.returncode == 7


def test_a_guest_that_does_not_end_is_killed() -> None:
    done = guest("--seconds", "1", "sleep", "1000")
    assert done.returncode == 124
    assert "out of time" in done.stderr


def test_a_guest_that_does_not_start_is_no_success_of_its_command() -> None:
    done = guest("--memory", "8M", "true")
    assert done.returncode == 125
    assert "the guest ended before its command did" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "cgroups", "directories"),
    [
        ("uml", "session", "session limited"),
        ("uml", "delegated", "delegated limited"),
        ("uml", "none", "none"),
        ("debian", "session", "debian"),
    ],
)
def test_all_that_is_to_be_shown_in_the_guest_with(
    kernel: str, cgroups: str, directories: str
) -> None:
    # Its sources cannot be written there, where hypothesis would.
    script = 'cd "$RL_GUEST_PREFIX/src/tests/guest" && pytest -v -p no:hypothesispytest "$@"'
    options = ("--seconds", "3000", "--kernel", kernel, "--cgroups", cgroups)
    done = guest(*options, "sh", "-c", script, "sh", *directories.split())
    print(done.stdout)  # noqa: T201 - pytest shows it where this fails
    assert done.returncode == 0, done.stderr
