"""Files that all belong to one user, shown as what they are to be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fuse_overlay.overlay import Overlay
from fuse_overlay.ownership import Ownership, parse_ranges
from tests.fuse_overlay.support import fill, in_namespace, layers, mount_options, mounted


def owner(path: Path) -> tuple[str, int, int]:
    status = path.lstat()
    return oct(stat.S_IMODE(status.st_mode)), status.st_uid, status.st_gid


@in_namespace
def test_ids_are_translated_both_ways_and_others_overflow(tmp_path: Path) -> None:
    low, upper, work = layers(tmp_path, "low", "upper", "work")
    fill(low, {"a": "a", "b": "b", "c": "c"})
    os.chown(low / "a", 100, 200)
    os.chown(low / "b", 105, 205)
    os.chown(low / "c", 999, 999)
    extra = ",uidmapping=100:0:10:0:50:1,gidmapping=200:0:10"
    with mounted([low], upper, work, tmp_path / "m", extra) as m:
        assert owner(m / "a")[1:] == (0, 0)
        assert owner(m / "b")[1:] == (5, 5)
        assert owner(m / "c")[1:] == (65534, 65534)
        os.chown(m / "a", 3, 4)
        assert owner(m / "a")[1:] == (3, 4)
        (m / "new").touch()
        assert owner(m / "new")[1:] == (0, 0)
        os.chmod(m / "b", 0o600)
    assert owner(upper / "a")[1:] == (103, 204)
    assert owner(upper / "new")[1:] == (100, 200)
    assert owner(upper / "b") == ("0o600", 105, 205)


@pytest.mark.parametrize(
    ("option", "shown"),
    [("squash_to_root", (0, 0)), ("squash_to_uid=7,squash_to_gid=8", (7, 8))],
    ids=["root", "ids"],
)
@in_namespace
def test_everything_is_squashed_to_one_owner(
    tmp_path: Path, option: str, shown: tuple[int, int]
) -> None:
    low, upper, work = layers(tmp_path, "low", "upper", "work")
    fill(low, {"d/a": "a", "link": "-> a"})
    os.chown(low / "d/a", 100, 200)
    os.lchown(low / "link", 3, 4)
    with mounted([low], upper, work, tmp_path / "m", f",{option}") as m:
        (m / "new").touch()
        for name in ("d", "d/a", "link", "new"):
            assert owner(m / name)[1:] == shown
        os.chmod(m / "d/a", 0o640)
        assert owner(m / "d/a") == ("0o640", *shown)
    assert owner(upper / "d/a") == ("0o640", 100, 200)


def _as_user(tmp_path: Path, script: str) -> str:
    """Run a script in a mount that a plain user, with nothing but its own id, has made."""
    low, upper, work = (tmp_path / name for name in ("low", "upper", "work"))
    options = mount_options([low], upper, work) + ",xattr_permissions=2"
    m = tmp_path / "m"
    m.mkdir(exist_ok=True)
    program = (
        f"{sys.executable} -m fuse_overlay -o {options} {m}; "
        f"cd {m}; {script}; cd /; umount {m}; flock {work}/work true"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-ec", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_user_with_one_id_keeps_owners_and_modes_in_an_attribute(tmp_path: Path) -> None:
    low, upper, _ = layers(tmp_path, "low", "upper", "work")
    fill(low, {"low": "low", "raw": "raw", "d/": ""})
    for name, value in (("low", b"0:0:4755"), ("d", b"0:0:1777")):
        os.setxattr(low / name, "user.containers.override_stat", value)
    show = "stat -c '%n %a %u %g' "
    assert _as_user(tmp_path, f"{show} low d").splitlines() == ["low 4755 0 0", "d 1777 0 0"]
    script = "echo x >> low; chmod 600 raw; umask 027; touch new; mkdir d/sub; chmod g+s d/sub"
    expected = ["low 755 0 0", "raw 600 0 0", "new 640 0 0", "d/sub 2750 0 0", "d 1777 0 0"]
    show += "low raw new d/sub d"
    assert _as_user(tmp_path, f"{script}; {show}").splitlines() == expected
    assert _as_user(tmp_path, show).splitlines() == expected
    value = os.getxattr(upper / "new", "user.containers.override_stat")
    assert value == b"0:0:640"
    assert owner(upper / "raw")[1:] == (os.getuid(), os.getgid())


def test_what_cannot_have_the_attribute_has_what_the_file_system_stores_and_says_so(
    tmp_path: Path,
) -> None:
    low, upper, work = layers(tmp_path, "low", "upper", "work")
    fill(low, {"link": "-> nowhere"})
    os.mkfifo(low / "fifo", 0o644)
    uid, gid = os.getuid(), os.getgid()
    owners = Ownership(attribute="user.containers.override_stat")
    with closing(Overlay([str(low)], str(upper), str(work), owners=owners)) as overlay:
        for name, made in (("fifo", 0o4610), ("link", 0o777)):
            found = overlay.lookup(1, name.encode())
            assert found is not None
            with pytest.raises(PermissionError):
                overlay.setattr(found.number, uid=uid + 1)
            overlay.setattr(found.number, uid=uid, gid=gid)
            if name == "fifo":
                assert overlay.setattr(found.number, mode=made).mode == stat.S_IFIFO | made
            overlay.rename(1, name.encode(), 1, b"moved-" + name.encode())
            assert owner(upper / f"moved-{name}") == (oct(made), uid, gid)
        overlay.mknod(1, b"new", stat.S_IFIFO | 0o640, 0, uid + 1, gid + 1)
    assert owner(upper / "new") == ("0o640", uid, gid)


def test_ranges_that_are_none_are_refused() -> None:
    assert parse_ranges("1:2:3:4:5:6") == [(1, 2, 3), (4, 5, 6)]
    for text in ("", "1:2", "a:b:c", "1:-2:3"):
        with pytest.raises(ValueError, match=r".*"):
            parse_ranges(text)


def test_an_attribute_that_means_nothing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch(0o640)
    owners = Ownership(attribute="user.containers.override_stat")
    for value in (b"", b"1", b"1:2", b"x:y:z", b"1:2:9"):
        os.setxattr(path, "user.containers.override_stat", value)
        shown = owners.shown(path.stat(), os.fsencode(path), follow=True)
        assert shown == (stat.S_IFREG | 0o640, os.getuid(), os.getgid())
