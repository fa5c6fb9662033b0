"""User namespaces: the ranges of subuid(5), the maps made of them, and calls inside."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from rootless.errors import ImageNotFound, RlError
from rootless.kernel import userns
from rootless.kernel.userns import IdMap, build_map, parse_ranges


def test_ranges_are_found_by_name_and_by_number() -> None:
    text = "bob:1:2\nalice:100000:65536\n# alice:7:7\n1000:300000:10\nalice\nalice:x:y\nalice:5:0\n"
    assert parse_ranges(text, "alice", 1000) == [(100000, 65536), (300000, 10)]
    assert parse_ranges(text, "carol", 1001) == []


def test_map_is_the_user_and_then_the_ranges_in_order() -> None:
    assert build_map(1000, [(100000, 65536), (300000, 10)]) == (
        IdMap(0, 1000, 1),
        IdMap(1, 100000, 65536),
        IdMap(65537, 300000, 10),
    )


def test_missing_range_names_the_file_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    # The one thing of this machine that a test cannot take away from its user.
    monkeypatch.setattr(userns, "parse_ranges", lambda *_: [])
    with pytest.raises(RlError, match=r"has no range in /etc/subuid .*usermod --add-subuids"):
        userns.user_maps()


def _identity() -> tuple[int, int, list[int], str]:
    return os.getuid(), os.getgid(), os.getgroups(), Path("/proc/self/uid_map").read_text()


def test_call_runs_as_root_of_a_mapped_namespace() -> None:
    uid, gid, groups, uid_map = userns.call(_identity)
    assert (uid, gid, groups) == (0, 0, [])
    first, second = (line.split() for line in uid_map.splitlines()[:2])
    assert first == ["0", str(os.getuid()), "1"]
    assert second[0] == "1"


def test_call_is_not_held_up_by_an_idle_thread() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        for _ in range(20):
            assert userns.call(_identity)[0] == 0
    finally:
        ended.set()
        thread.join()


def _own(path: Path) -> None:
    os.chown(path, 1, 2)


def test_call_can_give_files_to_subordinate_ids(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    userns.call(_own, file)
    maps = userns.user_maps()
    found = file.stat()
    assert (found.st_uid, found.st_gid) == (maps.uids[1].outside, maps.gids[1].outside + 1)


def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [ImageNotFound("no image x"), FileNotFoundError(2, "no", "f")])
def test_call_raises_what_the_function_raised(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        userns.call(_fail, error)
    assert str(raised.value) == str(error)


def test_call_keeps_the_exit_code_of_an_error() -> None:
    with pytest.raises(RlError) as raised:
        userns.call(_fail, RlError("x", 127))
    assert raised.value.exit_code == 127


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_call_whose_child_is_killed_is_an_error() -> None:
    with pytest.raises(RlError, match="ended unexpectedly"):
        userns.call(_kill_self)


def _open_descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"), key=int)


def test_call_leaks_no_descriptor_in(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w"):
        found = userns.call(_open_descriptors)
    # The streams, the way back, the directory being listed.
    assert len(found) <= 6


def test_child_of_call_dies_with_its_caller(tmp_path: Path) -> None:
    script = f"""
import os, time
from rootless.kernel import userns
def wait():
    open({str(tmp_path / "pid")!r}, "w").write(os.readlink("/proc/self"))
    time.sleep(1000)
userns.call(wait)
"""
    with subprocess.Popen(["python3", "-c", script]) as process:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert process.poll() is None
        process.kill()
    pid = (tmp_path / "pid").read_text()
    while Path(f"/proc/{pid}").exists():
        pass
