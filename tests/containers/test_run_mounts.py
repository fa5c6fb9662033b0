"""What `rl run` mounts: binds, volumes and tmpfs, and where links of an image lead them."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.containers.support import RUN, out, read_line
from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE

Files = Mapping[str, bytes | str | tarfile.TarInfo]


def test_bind_mount_is_the_host_directory(rl: Rl, tmp_path: Path) -> None:
    out(rl, "-v", f"{tmp_path}:/data", "alpine", "sh", "-c", "echo x > /data/made")
    made = tmp_path / "made"
    assert (made.read_text(), made.stat().st_uid) == ("x\n", os.getuid())


def test_bind_mount_can_be_read_only_and_of_a_file(rl: Rl, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("host\n")
    mount = f"type=bind,src={file},dst=/new/place/file,readonly"
    script = "cat /new/place/file; echo x > /new/place/file"
    done = rl(*RUN, "--mount", mount, "alpine", "sh", "-c", script, check=False)
    assert done.stdout == "host\n"
    assert "Read-only file system" in done.stderr
    assert file.read_text() == "host\n"


def test_read_only_bind_mount_is_read_only_below_too(rl: Rl, tmp_path: Path) -> None:
    script = "mount | grep ' /host' | grep -vc '(ro'"
    done = rl(*RUN, "-v", "/dev:/host:ro", "alpine", "sh", "-c", script, check=False)
    assert done.stdout == "0\n"


def test_mount_target_follows_links_inside_the_container_only(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "absolute").symlink_to("/etc")
    (tmp_path / "climbing").symlink_to("../../../../../../../../etc")
    for link in ("absolute", "climbing"):
        volume = f"{tmp_path}:/data"
        found = out(rl, "-v", volume, "--tmpfs", f"/data/{link}/below", "alpine", "mount")
        assert " /etc/below type tmpfs" in found.replace(" on ", " ").replace("tmpfs /", " /")
        assert not Path("/etc/below").exists()


def test_mount_target_through_a_link_to_nowhere_is_refused(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "canary")
    volume = f"{tmp_path}:/data"
    for target in ("/data/link", "/data/link/below"):
        done = rl(*RUN, "-v", volume, "--tmpfs", target, "alpine", "true", check=False)
        assert done.returncode == 125
        assert "a symlink that leads nowhere" in done.stderr
        assert not (tmp_path / "canary").exists()


def test_directory_bound_over_dev_is_left_as_it_is(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    found = out(rl, "-v", f"{tmp_path}:/dev", "alpine", "ls", "/dev").split()
    assert found == ["mine", "mqueue", "pts", "shm"]


def test_volume_is_filled_in_place(rl: Rl) -> None:
    script = "echo up; read _; echo mine > /data/mine; ls /data"
    with rl.start(
        *RUN, "-i", "-v", "inplace:/data", "alpine", "sh", "-c", script,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as first:  # fmt: skip
        assert read_line(first) == b"up\n"
        out(rl, "-v", "inplace:/etc", "alpine", "true")
        listing, _ = first.communicate(b"\n", PATIENCE)
    assert {b"mine", b"motd", b"passwd"} <= set(listing.split())


def test_filling_that_was_killed_is_made_anew(rl: Rl) -> None:
    rl("volume", "create", "anew")
    volume = rl.root / "volumes/anew/_data"
    (volume / "half").touch()
    mark = volume.parent / "filling"
    mark.write_text("\n")
    assert "motd" in out(rl, "-v", "anew:/etc", "alpine", "ls", "/etc")
    assert not (volume / "half").exists()
    assert mark.read_text() == ""


def image(rl: Rl, registry: Registry, directory: Path, files: Files, **config: object) -> str:
    """Push an image of busybox with these files and this configuration; return its name."""
    images.busybox(directory, files, config)
    registry.push(f"oci:{directory}:latest", "tests/made")
    return f"{registry.host}/tests/made"


def link(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry


@pytest.mark.parametrize("target", ["../run/resolve/stub.conf", "/run/resolve/stub.conf", "b"])
def test_file_is_mounted_where_a_dangling_link_of_the_image_leads(
    rl: Rl, registry: Registry, tmp_path: Path, target: str
) -> None:
    links = link("etc/resolv.conf", target), link("etc/b", "../run/c")
    files: Files = {"etc/": b"", "1": links[0], "2": links[1]}
    name = image(rl, registry, tmp_path, files)
    found = out(rl, "--pull", "always", "-q", name, "cat", "/etc/resolv.conf")
    assert found == Path("/etc/resolv.conf").read_text()


def test_volume_that_a_link_leads_to_proc_is_not_filled_from_it(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    files: Files = {"v": link("v", "/proc/1")}
    name = image(rl, registry, tmp_path, files)
    rl(*RUN, "--pull", "always", "-q", "-v", "leak:/v", name, "true", check=False)
    assert list((rl.root / "volumes/leak/_data").iterdir()) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"Volumes": {"/proc": {}}}, "the target cannot be '/proc'"),
        ({"Volumes": {"/": {}}}, "the target cannot be '/'"),
        ({"Volumes": {"relative": {}}}, "must be an absolute path"),
        ({"Entrypoint": [""]}, 'cannot execute ""'),
        ({"User": "\u0663"}, "unable to find user"),
        ({"WorkingDir": "/etc/passwd/x"}, "Not a directory"),
    ],
)
def test_image_that_asks_for_nonsense_is_refused_in_one_line(
    rl: Rl, registry: Registry, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    name = image(rl, registry, tmp_path, {"f": ""}, **config)
    done = rl(*RUN, "--pull", "always", "-q", name, "true", check=False)
    assert done.returncode in (125, 127)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_named_volume_is_filled_from_the_image_and_kept(rl: Rl) -> None:
    assert "root:" in out(rl, "-v", "kept:/etc", "alpine", "cat", "/etc/passwd")
    out(rl, "-v", "kept:/etc", "alpine", "sh", "-c", "echo mine > /etc/motd")
    assert out(rl, "-v", "kept:/x", "alpine", "cat", "/x/motd") == "mine\n"
    assert out(rl, "alpine", "cat", "/etc/motd") == "hello from busybox\n"


def test_anonymous_volume_goes_with_its_container(rl: Rl) -> None:
    before = set((rl.root / "volumes").glob("*"))
    assert out(rl, "-v", "/etc", "alpine", "cat", "/etc/motd") == "hello from busybox\n"
    assert set((rl.root / "volumes").glob("*")) == before


def test_tmpfs_is_empty_and_limited(rl: Rl) -> None:
    found = out(rl, "--tmpfs", "/etc:size=1m,mode=700", "alpine", "sh", "-c", "mount; ls /etc")
    line = next(line for line in found.splitlines() if " /etc " in line)
    assert all(option in line for option in ("size=1024k", "mode=700", "noexec", "nosuid"))
    assert "motd" not in found.split()
