"""What happens is written down, whole, and shown as Docker shows it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless import events, eventview
from rootless.cli import events as command
from tests.support.runner import Rl
from tests.support.waiting import wait_until

EVENT = {
    "status": "die", "id": "4c01", "from": "alpine:3", "Type": "container", "Action": "die",
    "Actor": {"ID": "4c01", "Attributes": {"image": "alpine:3", "name": "web", "tier": "front"}},
    "scope": "local", "time": 1769850000, "timeNano": 1769850000_000000123,
}  # fmt: skip


@pytest.fixture(scope="module")
def rl(make_rl: Callable[[], Rl], alpine: str) -> Rl:
    """Return the command with a store of these tests' own: they look at all that happens."""
    return make_rl()


def past(root: Path) -> list[eventview.Event]:
    return list(eventview.read(root, 0, time.time()))


def test_event_is_what_dockers_api_calls_one(tmp_path: Path) -> None:
    events.record(tmp_path, "container", "start", "4c01", {"image": "alpine", "name": "web"})
    (event,) = past(tmp_path)
    assert event == {
        "status": "start", "id": "4c01", "from": "alpine", "Type": "container", "Action": "start",
        "Actor": {"ID": "4c01", "Attributes": {"image": "alpine", "name": "web"}},
        "scope": "local", "time": event["time"], "timeNano": event["timeNano"],
    }  # fmt: skip
    assert event["time"] == event["timeNano"] // 10**9


def test_line_that_a_kill_cut_off_harms_no_other(tmp_path: Path) -> None:
    for name in ("first", "second"):
        events.record(tmp_path, "volume", "create", name)
    file = events.path(tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    events.record(tmp_path, "volume", "create", "third")
    assert [event["Actor"]["ID"] for event in past(tmp_path)] == ["first", "third"]


def test_labels_of_a_hostile_image_do_not_fill_the_file(tmp_path: Path) -> None:
    labels = {f"{number}{'n' * 9000}": "v" * 100_000 for number in range(1000)}
    events.record(tmp_path, "container", "start", "id", {"name": "web"} | labels)
    assert events.path(tmp_path).stat().st_size < 200_000
    assert past(tmp_path)[0]["Actor"]["Attributes"]["name"] == "web"


def test_full_disk_fails_nobody(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir(mode=0o500)
    events.record(tmp_path, "volume", "create", "lost")


def test_several_writers_and_a_full_file_lose_and_tear_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_LARGEST_FILE", 10_000)
    events.record(tmp_path, "volume", "create", "before")
    writers = []
    for writer in range(3):
        if (pid := os.fork()) == 0:
            for number in range(40):
                events.record(tmp_path, "volume", "create", f"{writer} {number}")
            os._exit(0)
        writers.append(pid)
    found = []
    for event in eventview.read(tmp_path, 0, None):
        found.append(event["Actor"]["ID"])
        if len(found) == 121:
            break
    for pid in writers:
        os.waitpid(pid, 0)
    assert found[0] == "before"
    for writer in range(3):
        mine = [name.split()[1] for name in found[1:] if name.startswith(f"{writer} ")]
        assert mine == [str(number) for number in range(40)]
    assert events.older(events.path(tmp_path)).exists()
    assert events.path(tmp_path).stat().st_size < 15_000


def test_event_is_printed_as_docker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert command.line(EVENT) == (
            "2026-01-31T14:30:00.000000123+05:30 container die 4c01 "
            "(image=alpine:3, name=web, tier=front)"
        )
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({"container": ["web"]}, True),
        ({"container": ["4c"]}, True),
        ({"container": ["db"]}, False),
        ({"event": ["start", "die"]}, True),
        ({"event": ["start"]}, False),
        ({"type": ["image"]}, False),
        ({"image": ["alpine"]}, True),
        ({"image": ["alpine:2"]}, False),
        ({"label": ["tier=front"]}, True),
        ({"label": ["tier=front", "more"]}, False),
        ({"volume": ["v"]}, False),
    ],
)
def test_filters_choose_as_dockers_do(wanted: dict[str, list[str]], shown: bool) -> None:
    assert command.selected(EVENT, wanted) is shown


def actions(rl: Rl, *options: str) -> list[str]:
    form = "{{.Type}} {{.Action}}"
    done = rl("events", "--since", "0", "--until", "0s", "--format", form, *options)
    return done.stdout.splitlines()


def test_life_of_a_container_is_told(rl: Rl) -> None:
    script = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done"
    rl("run", "-d", "--name", "told", "--label", "a=b", "alpine", "sh", "-c", script)
    wait_until(lambda: rl("logs", "told").stdout)
    rl("exec", "told", "sh", "-c", "exit 6", check=False)
    rl("rename", "told", "new")
    rl("stop", "new")
    rl("start", "new")
    rl("rm", "-f", "new")
    assert actions(rl, "--filter", "type=container") == [
        "container create", "container start",
        "container exec_create: sh -c exit 6", "container exec_start: sh -c exit 6",
        "container exec_die", "container rename",
        "container kill", "container die", "container stop",
        "container start", "container kill", "container die", "container destroy",
    ]  # fmt: skip
    assert "image pull" in actions(rl)
    told = ("--filter", "type=container", "--format", "{{.Type}} {{.Action}}")
    for option in "--stream=false", "--no-stream":
        assert rl("events", option, *told).stdout.splitlines() == actions(rl, *told[:2])
    done = rl("events", "--since", "1h", "--until", "0s", "-f", "event=die", "--format", "json")
    deaths = [json.loads(text)["Actor"]["Attributes"] for text in done.stdout.splitlines()]
    assert [death["exitCode"] for death in deaths] == ["4", "137"]
    assert (deaths[0]["name"], deaths[0]["image"], deaths[0]["a"]) == ("new", "alpine", "b")


def test_events_are_shown_as_they_happen_without_polling(rl: Rl) -> None:
    form = "{{.Actor.Attributes.name}} {{.Status}}"
    options = ("--filter", "container=live", "--format", form)
    with rl.start("events", *options, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        wait_until(lambda: watches(process.pid))
        rl("run", "--rm", "--name", "live", "alpine", "true")
        seen = [process.stdout.readline().decode().strip() for _ in range(4)]
        assert seen == ["live create", "live start", "live die", "live destroy"]
        process.kill()


def watches(pid: int) -> bool:
    """Tell whether a process waits for what is appended to the file of events."""
    try:
        fds = {
            os.readlink(f"/proc/{pid}/fd/{fd}"): Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
            for fd in os.listdir(f"/proc/{pid}/fd")
        }
    except FileNotFoundError:
        # One was closed while we looked.
        return False
    return "anon_inode:inotify" in fds and any(
        link.endswith("events.jsonl") and int(info.split()[1]) == os.stat(link).st_size
        for link, info in fds.items()
    )
