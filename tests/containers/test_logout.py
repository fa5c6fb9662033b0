"""What is known of the end of a login."""

from __future__ import annotations

import pytest

from rootless.containers.logout import in_session, kills, user_manager


@pytest.mark.parametrize(
    ("cgroup", "session"),
    [
        ("0::/user.slice/user-1000.slice/session-3.scope\n", True),
        ("1:name=systemd:/user.slice/user-1000.slice/session-c2.scope/x\n0::/\n", True),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n", False),
        ("0::/\n", False),
        ("", False),
    ],
)
def test_only_a_session_ends_with_the_login(cgroup: str, session: bool) -> None:
    assert in_session(cgroup) is session


@pytest.mark.parametrize(
    ("cgroup", "uid"),
    [
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n", 1000),
        ("0::/user.slice/user-1000.slice/user@1000.service\n", 1000),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("", None),
    ],
)
def test_users_manager_is_known_from_the_cgroup(cgroup: str, uid: int | None) -> None:
    assert user_manager(cgroup) == uid


@pytest.mark.parametrize(
    ("files", "killing"),
    [
        ([], False),
        (["[Login]\n#KillUserProcesses=yes\n"], False),
        (["[Login]\nKillUserProcesses=yes\n"], True),
        (["[Login]\nKillUserProcesses=yes\n", "[Login]\nKillUserProcesses = no\n"], False),
    ],
)
def test_the_last_word_of_the_configuration_counts(files: list[str], killing: bool) -> None:
    assert kills(files) is killing
