"""Which way to a cgroup is taken."""

from __future__ import annotations

from rootless.cgroups.group import explain_missing, own_service
from rootless.cgroups.place import Level, Way, choose

SESSION = "/user.slice/user-1000.slice/session-1.scope"
APP = "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope"


def test_what_is_delegated_comes_first() -> None:
    levels = [Level("/c/a/b", occupied=True), Level("/c/a", occupied=False)]
    assert choose("/a/b", levels, 1000, "/run/bus") == Way("delegated", parent="/c/a")


def test_a_cgroup_with_processes_is_better_than_none() -> None:
    levels = [Level("/c/a", occupied=True)]
    assert choose("/a", levels, 1000, None) == Way("delegated", parent="/c/a")


def test_what_is_systemds_is_left_to_systemd() -> None:
    levels = [Level("/c/app.slice/x.scope", occupied=True), Level("/c/app.slice", occupied=False)]
    assert choose(APP, levels, 1000, "/run/bus") == Way("systemd", bus="/run/bus")
    assert choose(APP, levels, 1000, None).kind == "none"


def test_another_users_manager_is_none_of_ours() -> None:
    levels = [Level("/c/x", occupied=False)]
    assert choose(APP, levels, 1001, None) == Way("delegated", parent="/c/x")


def test_a_session_has_systemd() -> None:
    assert choose(SESSION, [], 1000, "/run/bus") == Way("systemd", bus="/run/bus")


def test_without_any_the_reason_says_what_was_looked_for() -> None:
    way = choose(SESSION, [], 1000, None)
    assert way.kind == "none"
    assert SESSION in way.reason
    assert "/run/user/1000/bus" in way.reason


def test_a_container_is_part_of_the_service_that_starts_it() -> None:
    manager = "/user.slice/user-1000.slice/user@1000.service"
    assert own_service(f"{manager}/app.slice/rl.service", 1000) == "rl.service"
    assert own_service(f"{manager}/app.slice/job.service/leaf", 1000) == "job.service"
    assert own_service(APP, 1000) is None
    assert own_service(SESSION, 1000) is None


NOWHERE = Way("none", reason="nothing is yours", cure="loginctl enable-linger me")


def test_what_is_missing_is_said_with_what_the_administrator_can_do() -> None:
    said = explain_missing({"memory", "cpu"}, NOWHERE)
    assert "need the cgroup controllers cpu memory, which are not delegated to you: nothing" in said
    assert "loginctl enable-linger me; Delegate=cpu memory in" in said


def test_a_parent_needs_a_delegated_cgroup_and_no_controllers() -> None:
    assert explain_missing(set(), NOWHERE) == (
        "--cgroup-parent needs a cgroup that is delegated to you: nothing is yours (ask the "
        "administrator for: loginctl enable-linger me)"
    )
