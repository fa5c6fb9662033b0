"""Copy-up: what it keeps, what it copies, and what is left when it fails."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

from tests.fuse_overlay.made import Made, content, look, patient, refused, write
from tests.fuse_overlay.support import fill, in_namespace, tree

_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service, permitted and effective."""


def test_removing_a_lower_file_copies_nothing(made: Made) -> None:
    with (made.bottom / "big").open("w") as file:
        file.truncate(1 << 40)
    fill(made.bottom, {"d/f": ""})
    with made.overlay() as overlay:
        overlay.unlink(1, b"big")
        overlay.unlink(look(overlay, "d").number, b"f")
        overlay.rmdir(1, b"d")
    assert sorted(os.listdir(made.upper)) == ["big", "d"]
    for name in ("big", "d"):
        status = os.lstat(made.upper / name)
        assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, 0)


def test_truncating_a_lower_file_copies_only_what_stays(made: Made) -> None:
    (made.bottom / "big").write_bytes(b"x" * (1 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with made.overlay() as overlay:
        number = look(overlay, "big").number
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))
        try:
            overlay.setattr(number, size=1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert content(overlay, "big") == b"x" * 1000


def test_a_copy_up_that_fails_leaves_nothing(made: Made) -> None:
    (made.bottom / "big").write_bytes(b"x" * (1 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with made.overlay() as overlay:
        number = look(overlay, "big").number
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limits[1]))
        try:
            with refused(errno.EFBIG):
                overlay.write(number, 0, b"x")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.listdir(made.upper) == []
        assert os.listdir(made.work / "work") == []
        write(overlay, number, b"now")
        assert content(overlay, "big")[:4] == b"nowx"


def test_copy_up_keeps_holes(made: Made) -> None:
    with (made.bottom / "sparse").open("wb") as file:
        file.seek(100 << 20)
        file.write(b"middle")
        file.truncate(1 << 30)
    with made.overlay() as overlay:
        number = look(overlay, "sparse").number
        write(overlay, number, b"start")
        attributes = overlay.getattr(number)
        assert attributes.status.st_size == 1 << 30
        assert attributes.status.st_blocks * 512 < 1 << 20
        assert overlay.read(number, 100 << 20, 7) == b"middle\0"


def test_an_open_file_goes_on_with_the_copy(made: Made) -> None:
    fill(made.bottom, {"f": "lower text"})
    with made.overlay() as overlay:
        number = look(overlay, "f").number
        write(overlay, number, b"UPPER")
        assert overlay.read(number, 0, 99) == b"UPPER text"


@in_namespace
def test_copy_up_keeps_owner_mode_times_and_attributes_of_every_type(tmp_path: Path) -> None:
    made = Made(tmp_path)
    fill(made.bottom, {"d/file": "text", "d/link": "-> nowhere"})
    os.mkfifo(made.bottom / "d/fifo")
    os.setxattr(made.bottom / "d/file", "user.x", b"x")
    os.setxattr(made.bottom / "d/file", "security.capability", _CAPABILITY)
    for index, name in enumerate(("d/file", "d/link", "d/fifo", "d")):
        os.chown(made.bottom / name, 100 + index, 200 + index, follow_symlinks=False)
        if name != "d/link":
            os.chmod(made.bottom / name, 0o4750 if name != "d/file" else 0o640)
        os.utime(made.bottom / name, ns=(123456789, 987654321 + index), follow_symlinks=False)
    os.setxattr(made.bottom / "d/file", "security.capability", _CAPABILITY)
    os.utime(made.bottom / "d/file", ns=(123456789, 987654321))
    before = tree(made.bottom)
    with made.overlay() as overlay:
        for name in ("file", "link", "fifo"):
            inode = overlay._inode(look(overlay, f"d/{name}").number)
            patient(overlay._writer().copier.copy_up)(inode)
    after = tree(made.upper)
    assert {name: after[name] for name in before if name != "."} == {
        name: before[name] for name in before if name != "."
    }


def test_copy_up_is_no_change_of_the_directory(made: Made) -> None:
    fill(made.bottom, {"d/f": "low"})
    os.utime(made.bottom / "d", ns=(5, 6))
    with made.overlay() as overlay:
        write(overlay, look(overlay, "d/f").number, b"x")
        assert look(overlay, "d").status.st_mtime_ns == 6
