"""Attacks by what a process may do itself: each succeeds where the defence it names is off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.runner import Rl
from tests.support.undefended import changed

# So that the filter is not what is in the way.
UNFILTERED = ("--security-opt", "seccomp=unconfined")

IMPORTS = """
from rootless.containers import command, identity
from rootless.containers.seccomp import program
from rootless.kernel import capabilities, syscalls
"""

# Programs with the rights of others, and files that are refused to the user 1000.
SET_UP = """
cp /bin/cat /tools/cat-of-root; chmod 4755 /tools/cat-of-root
cp /bin/cat /tools/cat-of-group; chgrp 50 /tools/cat-of-group; chmod 2755 /tools/cat-of-group
cp /bin/hostname /tools/hostname-of-root; chmod 4755 /tools/hostname-of-root
echo secret > /tools/of-root; chmod 600 /tools/of-root
echo secret > /tools/not-for-group; chgrp 1000 /tools/not-for-group; chmod 604 /tools/not-for-group
"""


@pytest.fixture(scope="module")
def tools(rl: Rl, debian: str) -> Iterator[tuple[str, ...]]:
    """Return the options that show a container the programs."""
    options = ("-v", "tools:/tools")
    rl("run", "-q", "--rm", *options, debian, "sh", "-ec", SET_UP)
    yield options
    rl("volume", "rm", "tools")


def succeeds(rl: Rl, entry: str, options: tuple[str, ...], user: str, *command: str) -> bool:
    """Tell whether a command of a user, run or executed in a container, ends with 0."""
    if entry == "run":
        run = ("run", "-q", "--rm", "-u", user, *options, "debian", *command)
        return rl(*run, check=False).returncode == 0
    # With its defences: it is the process that enters that has none.
    defended = Rl(rl.directory, rl.registry_host)
    defended("run", "-q", "-d", "--name", "attacked", *options, "debian", "sleep", "100000")
    try:
        return rl("exec", "-u", user, "attacked", *command, check=False).returncode == 0
    finally:
        rl("rm", "-f", "attacked")


both = pytest.mark.parametrize("entry", ["run", "exec"])


@both
def test_user_does_not_leave_his_group_by_a_program_of_another(
    rl: Rl, tools: tuple[str, ...], entry: str
) -> None:
    # CVE-2022-36109: what refuses a file to his group lets him have it as one of the others.
    def attack(rl: Rl) -> bool:
        command = ("/tools/cat-of-group", "/tools/not-for-group")
        return succeeds(rl, entry, tools, "1000:1000", *command)

    assert not attack(rl)
    own_missing = """
set_groups = command._set_groups
command._set_groups = lambda groups: set_groups([])
"""
    assert attack(changed(rl, IMPORTS + own_missing))


@both
def test_setuid_program_gives_nothing_without_new_privileges(
    rl: Rl, tools: tuple[str, ...], entry: str
) -> None:
    options = (*tools, *UNFILTERED, "--security-opt", "no-new-privileges")

    def attack(rl: Rl) -> bool:
        return succeeds(rl, entry, options, "1000", "/tools/cat-of-root", "/tools/of-root")

    assert not attack(rl)
    allowed = """
prctl = syscalls.prctl
def allow(option, *rest):
    return 0 if option == syscalls.PR_SET_NO_NEW_PRIVS else prctl(option, *rest)
syscalls.prctl = allow
"""
    assert attack(changed(rl, IMPORTS + allowed))


@both
@pytest.mark.parametrize("user", ["0", "1000"])
def test_capability_that_was_not_given_is_gained_by_no_program(
    rl: Rl, tools: tuple[str, ...], entry: str, user: str
) -> None:
    def attack(rl: Rl) -> bool:
        options = (*tools, *UNFILTERED)
        return succeeds(rl, entry, options, user, "/tools/hostname-of-root", "taken")

    assert not attack(rl)
    assert attack(changed(rl, f"{IMPORTS}capabilities.limit_bounding_set = lambda names: None"))


@pytest.mark.parametrize("entry", ["run", "exec", "health check"])
def test_rare_system_calls_are_for_no_process_of_a_container(
    rl: Rl, debian: str, entry: str
) -> None:
    def attack(rl: Rl) -> bool:
        if entry == "health check":
            return rl("healthcheck", "run", "checked", check=False).returncode == 0
        return succeeds(rl, entry, (), "0", "unshare", "-U", "true")

    if entry == "health check":
        options = ("--health-cmd", "unshare -U true", "--health-interval", "24h")
        rl("run", "-q", "-d", "--name", "checked", *options, debian, "sleep", "100000")
    assert not attack(rl)
    assert attack(changed(rl, f"{IMPORTS}program.put_on = lambda confined_by: None"))
    if entry == "health check":
        rl("rm", "-f", "checked")


def test_ids_of_a_container_with_a_range_of_its_own_are_nobody_elses(rl: Rl) -> None:
    def attack(rl: Rl) -> bool:
        """Return whether a second container has an id of the first."""
        first = []
        for name in ("auto1", "auto2"):
            options = ("--name", name, "--userns", "auto:size=500")
            rl("create", *options, "alpine", "cat", "/proc/self/uid_map")
            first.append(rl("start", "-a", name).stdout.split()[1])
        rl("rm", "auto1", "auto2")
        return first[0] == first[1]

    assert not attack(rl)
    assert attack(changed(rl, f"{IMPORTS}identity._taken = lambda containers: []"))
