"""A whole distribution in a container: Debian, its package manager and its programs."""

from __future__ import annotations

import pytest

from tests.support.runner import Rl


@pytest.fixture
def debian_rl(rl: Rl, debian: str) -> Rl:
    """Return the command with the Debian image at hand."""
    rl("pull", "-q", debian)
    return rl


def test_packages_are_installed_from_the_mirror_and_run(debian_rl: Rl) -> None:
    script = """
        set -e
        apt-get update -q
        apt-get install -q -y --no-install-recommends file
        file --version
        dpkg --verify file libmagic1
        dpkg-query -W -f '${Status}\\n' file
    """
    done = debian_rl("run", "--rm", "--network", "host", "debian", "sh", "-c", script, timeout=600)
    assert "magic file from /etc/magic" in done.stdout
    assert done.stdout.endswith("install ok installed\n")
    # apt warns here when it cannot become the user _apt for its downloads.
    assert "unsandboxed" not in done.stderr
    gone = debian_rl("run", "--rm", "debian", "file", "--version", check=False)
    assert gone.returncode == 127


def test_interpreters_of_the_image_run(debian_rl: Rl) -> None:
    python = "import json, sys; print(json.dumps([sys.version_info.major, 6 * 7]))"
    assert debian_rl("run", "--rm", "debian", "python3", "-c", python).stdout == "[3, 42]\n"
    perl = "print join(',', map { $_ * 2 } 1..3)"
    assert debian_rl("run", "--rm", "debian", "perl", "-e", perl).stdout == "2,4,6"


def test_layers_are_merged_with_their_whiteouts(debian_rl: Rl) -> None:
    script = "ls /opt /opt/emptied; cat /opt/kept/old"
    assert debian_rl("run", "--rm", "debian", "sh", "-c", script).stdout == (
        "/opt:\nemptied\nkept\n\n/opt/emptied:\nnew\nfrom the second layer\n"
    )


def test_files_belong_to_the_users_that_the_image_says(debian_rl: Rl) -> None:
    paths = ("/var/mail", "/etc/shadow", "/usr/bin/passwd", "/var/cache/apt/archives/partial")
    command = ("stat", "-c", "%U:%G %a %n", *paths)
    assert debian_rl("run", "--rm", "debian", *command).stdout.splitlines() == [
        "root:mail 2775 /var/mail",
        "root:shadow 640 /etc/shadow",
        "root:root 4755 /usr/bin/passwd",
        "_apt:root 700 /var/cache/apt/archives/partial",
    ]


def test_setuid_programs_work_inside(debian_rl: Rl) -> None:
    # Only root may read /etc/shadow: passwd can because it is setuid.
    script = "su nobody -s /bin/sh -c 'passwd -S nobody'"
    done = debian_rl("run", "--rm", "debian", "sh", "-c", script)
    assert done.stdout.startswith("nobody ")


def test_a_pipeline_of_programs_over_a_real_tree(debian_rl: Rl) -> None:
    found = debian_rl("run", "--rm", "debian", "sh", "-c", "tar c /usr | tar t | wc -l").stdout
    listed = debian_rl("run", "--rm", "debian", "sh", "-c", "find /usr | wc -l").stdout
    assert int(found) == int(listed) > 5000
