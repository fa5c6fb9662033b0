"""--userns: who the container's users are on the host, and whose files they see and make."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images, leaks
from tests.support.registry import Registry
from tests.support.runner import Rl

RUN = ("run", "--rm", "-q")


def out(rl: Rl, *arguments: str) -> str:
    return rl(*RUN, *arguments).stdout


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """Return a directory of the host to be mounted, removed whoever owns what is in it."""
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "mine").write_text("mine\n")
    yield directory
    leaks.remove_tree(directory)


def test_keep_id_runs_as_the_user_who_makes_files_that_are_his(rl: Rl, host: Path) -> None:
    script = "id -u; id -g; id -un; touch /v/made; cat /v/mine; stat -c %u /v/mine /etc/motd"
    found = out(rl, "--userns", "keep-id", "-v", f"{host}:/v", "alpine", "sh", "-c", script)
    uid, gid = os.getuid(), os.getgid()
    assert found.split() == [str(uid), str(gid), "rl-test", "mine", str(uid), "0"]
    made = (host / "made").stat()
    assert (made.st_uid, made.st_gid) == (uid, gid)


def test_keep_id_root_is_a_subordinate_id(rl: Rl, host: Path) -> None:
    script = "id -u; touch /v/made 2>&1; touch /root/x && stat -c %u:%g /root/x"
    found = out(
        rl, "--userns", "keep-id", "-u", "0", "-v", f"{host}:/v", "alpine", "sh", "-c", script
    )
    # With the capabilities of the container's root it writes where the user may.
    assert found.split() == ["0", "0:0"]
    assert (host / "made").stat().st_uid not in (os.getuid(), 0)


@pytest.mark.parametrize("number", [5, 1234567])
def test_keep_id_can_be_another_number_also_one_beyond_the_range(
    rl: Rl, host: Path, number: int
) -> None:
    mode = f"keep-id:uid={number},gid={number}"
    script = "id -u; touch /tmp/own /v/made; stat -c %u:%g /tmp/own /v/made; ls -ln /bin/sh"
    found = out(rl, "--userns", mode, "-v", f"{host}:/v", "alpine", "sh", "-c", script).split()
    assert found[:3] == [str(number), f"{number}:{number}", f"{number}:{number}"]
    assert (host / "made").stat().st_uid == os.getuid()


def test_kept_user_has_an_account_that_the_container_may_change(rl: Rl) -> None:
    script = "grep -c rl-test /etc/passwd /etc/group; mv /etc/passwd /etc/p; mv /etc/p /etc/passwd"
    options = ("--name", "account", "--userns", "keep-id", "-u", "0")
    rl("create", *options, "alpine", "sh", "-c", script)
    for _ in range(2):
        assert rl("start", "-a", "account").stdout == "/etc/passwd:1\n/etc/group:1\n"
    rl("rm", "account")


@pytest.mark.parametrize("where", ["link to a bind", "link to proc", "fifo"])
def test_account_is_written_nowhere_but_into_the_containers_own_files(
    rl: Rl, registry: Registry, tmp_path: Path, host: Path, where: str
) -> None:
    (host / "passwd").write_text("host:x:7:7::/:/bin/sh\n")
    etc, entry = tarfile.TarInfo("etc"), tarfile.TarInfo("etc/passwd")
    entry.type = tarfile.SYMTYPE
    files: dict[str, bytes | str | tarfile.TarInfo]
    if where == "link to a bind":
        etc.type, etc.linkname = tarfile.SYMTYPE, "v"
        files = {"1": etc}
    elif where == "link to proc":
        entry.linkname = "/proc/self/comm"
        files = {"etc/": b"", "1": entry}
    else:
        entry.type = tarfile.FIFOTYPE
        files = {"etc/": b"", "1": entry}
    images.busybox(tmp_path / "image", files)
    registry.push(f"oci:{tmp_path / 'image'}:latest", "tests/account")
    name = f"{registry.host}/tests/account"
    options = ("--pull", "always", "--userns", "keep-id", "-v", f"{host}:/v")
    rl(*RUN, *options, name, "true", check=False)
    assert (host / "passwd").read_text() == "host:x:7:7::/:/bin/sh\n"


def test_nomap_makes_the_user_nobody(rl: Rl, host: Path) -> None:
    script = "id -u; stat -c %u /v/mine /etc/motd; touch /v/made || echo refused"
    found = rl(*RUN, "--userns", "nomap", "-v", f"{host}:/v", "alpine", "sh", "-c", script)
    assert found.stdout.split() == ["0", "65534", "0", "refused"]


@pytest.mark.parametrize("mode", ["nomap", "auto", "keep-id", "single"])
def test_volumes_are_filled_and_written_to_in_every_mode(rl: Rl, mode: str) -> None:
    script = "cat /etc/motd; echo new > /etc/motd; ls -ln /etc/motd | awk '{ print $3, $4 }'"
    user = ("-u", "0") if mode == "keep-id" else ()
    volume = f"of-{mode}:/etc"
    found = out(rl, "--userns", mode, *user, "-v", volume, "alpine", "sh", "-c", script)
    assert found == "hello from busybox\n0 0\n"
    rl("volume", "rm", f"of-{mode}")


def ids(rl: Rl, name: str) -> range:
    line = rl("exec", name, "cat", "/proc/self/uid_map").stdout
    inside, first, count = map(int, line.split())
    assert inside == 0
    return range(first, first + count)


def test_autos_share_no_id_with_each_other_and_not_with_the_user(rl: Rl) -> None:
    for name in ("auto1", "auto2"):
        rl("run", "-d", "--name", name, "--userns", "auto:size=500", "alpine", "sleep", "1000")
    first, second = ids(rl, "auto1"), ids(rl, "auto2")
    assert (len(first), len(second)) == (500, 500)
    assert not set(first) & set(second)
    assert os.getuid() not in {*first, *second}
    assert rl("inspect", "-f", "{{.HostConfig.UsernsMode}}", "auto1").stdout == "auto:size=500\n"
    rl("rm", "-f", "auto1", "auto2")


def test_exec_joins_whatever_the_ids_are(rl: Rl) -> None:
    for mode, uid in (("keep-id", os.getuid()), ("nomap", 0), ("single", 0)):
        rl("run", "-d", "--name", "joined", "--userns", mode, "alpine", "sleep", "1000")
        assert rl("exec", "joined", "id", "-u").stdout == f"{uid}\n"
        rl("rm", "-f", "joined")


@pytest.mark.parametrize("mode", ["keep-id", "nomap"])
def test_files_are_copied_whatever_the_ids_are(rl: Rl, host: Path, mode: str) -> None:
    script = "[ -e /tmp/mine ] && stat -c %u:%g /tmp/mine && exit; sleep 1000"
    rl("run", "-d", "--name", "copied", "--userns", mode, "alpine", "sh", "-c", script)
    rl("cp", "copied:/etc/motd", str(host / "running"))
    rl("stop", "-t", "0", "copied")
    rl("cp", "copied:/etc/motd", str(host / "stopped"))
    for name in ("running", "stopped"):
        assert (host / name).read_text() == "hello from busybox\n"
        assert (host / name).stat().st_uid == os.getuid()
    rl("cp", str(host / "mine"), "copied:/tmp/mine")
    assert rl("start", "-a", "copied").stdout == "0:0\n"
    rl("rm", "copied")


def test_what_was_made_in_one_mode_is_the_same_in_the_next(rl: Rl) -> None:
    # A container keeps its mode, so it is the volume that changes hands.
    script = "touch /v/a; chown 33:34 /v/a"
    out(rl, "-v", "handed:/v", "alpine", "sh", "-c", script)
    look = ("-v", "handed:/v", "alpine", "stat", "-c", "%u:%g", "/v/a")
    assert out(rl, *look) == "33:34\n"
    # For another map, the same id of the host is another one inside.
    (line,) = re.findall(r"\d+:\d+", out(rl, "--userns", "nomap", *look))
    assert line == "32:33"
    rl("volume", "rm", "handed")


def test_unknown_mode_is_refused_before_anything_is_made(rl: Rl) -> None:
    done = rl(*RUN, "--userns", "keep-it", "alpine", "true", check=False)
    assert done.returncode == 125
    assert "invalid --userns 'keep-it'" in done.stderr


# Without a range of subordinate ids


def without_range(rl: Rl, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where /etc/subuid and /etc/subgid have nothing for us."""
    empty = tmp_path / "empty"
    empty.touch()
    script = (
        f"mount --bind {empty} /etc/subuid && mount --bind {empty} /etc/subgid && "
        f'exec unshare --user --map-user={os.getuid()} --map-group={os.getgid()} "$@"'
    )
    unshare = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    return subprocess.run(
        [*unshare, *rl.command, *arguments],
        env=rl.environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_without_a_range_it_is_said_what_to_do(fresh_rl: Rl, tmp_path: Path) -> None:
    done = without_range(fresh_rl, tmp_path, "run", "--rm", "alpine", "true")
    assert done.returncode == 125
    assert "has no range in /etc/subuid" in done.stderr
    assert "usermod --add-subuids" in done.stderr
    assert "--userns=single" in done.stderr
    # Nothing was fetched for nothing.
    assert fresh_rl("images", "-q").stdout == ""


def test_single_needs_no_range_and_all_is_roots(
    fresh_rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    entry = tarfile.TarInfo("srv/of-www-data")
    entry.uid = entry.gid = 33
    images.busybox(tmp_path / "image", {"srv/": b"", "1": entry})
    registry.push(f"oci:{tmp_path / 'image'}:latest", "tests/single")
    name = f"{registry.host}/tests/single"
    run = ("run", "--rm", "-q", "--userns", "single", "-v", "kept:/srv", name)
    script = "id -u; stat -c %u:%g /srv/of-www-data; touch /new; echo x >> /srv/of-www-data"
    done = without_range(fresh_rl, tmp_path, *run, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "0\n0:0\n"), done.stderr
    again = without_range(fresh_rl, tmp_path, *run, "cat", "/srv/of-www-data")
    assert (again.returncode, again.stdout) == (0, "x\n"), again.stderr
    for command in (("volume", "rm", "kept"), ("rmi", name)):
        assert without_range(fresh_rl, tmp_path, *command).returncode == 0
